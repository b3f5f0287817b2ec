import json, time, pytest, torch
from qvft.build.merging import merge_run
CASES={
 'fp32':({},None),
 'bf16':({},'bfloat16'),
 'fp16':({},'float16'),
 'dora':({'tune':{'lora':{'dora':True}}},None),
 'dora16':({'tune':{'lora':{'dora':True}}},'bfloat16'),
 'rs':({'tune':{'lora':{'rslora':True}}},None),
 'qlora':({'model':{'quantize':{'scheme':'nf4'}}},None),
 'qdora':({'model':{'quantize':{'scheme':'nf4'}},'tune':{'lora':{'dora':True}}},'bfloat16'),
 'bfcompute':({'model':{'dtype':'bfloat16'}},'bfloat16'),
}
@pytest.mark.parametrize('name',CASES)
def test_x(name,make_run,tmp_path):
    ch,dt=CASES[name]
    t=time.time(); run=make_run(tmp_path/'run',**ch); t1=time.time()
    c=merge_run(run,tmp_path/'out',dtype=dt); t2=time.time()
    v=c['verification']
    print('\n##',name,round(t1-t,2),round(t2-t1,2),c['keys'],v['weights'])
    b=v['behaviour']; print('   ', {k:b[k] for k in b})
    print('   ', v['quantized'])
    print(sorted(p.name for p in (tmp_path/'out').iterdir()))
    if name=='fp32': print((tmp_path/'out/README.md').read_text()); print((tmp_path/'out/config.json').read_text()); print((tmp_path/'out/generation_config.json').read_text()); print(open(run/'adapter/adapter_config.json').read()); print(sorted(json.load(open(run/'adapter/manifest.json'))['bridge'])[:3])
