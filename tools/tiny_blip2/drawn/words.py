"""General and medical English words that the embedded model's tokenizer should write shortly."""

_WORDS = """
yes no not none is are was be been has have had do does did can could will would should may the of
in to and or for with without on at by from as it its this that these those there their they he
she his her we you your which what where when who why how many much more most less than any all
some other another each both same such only also very one two three four five six seven eight nine
zero ten first second third last next new old high low long short big small large great good
normal abnormal left right upper lower top bottom middle center centre side front back above below
between inside outside near far up down over under into out through across along around red green
blue yellow orange purple pink black white gray brown dark light bright color colour shape size
number digit letter written handwritten printed shown seen visible present absent image picture
photo photograph scan view background object thing things person people man woman child boy girl
hand hands head face eye eyes hair body foot arm leg animal dog cat bird horse cow sheep bear
elephant tree grass flower water sea river sky cloud sun snow road street car bus truck train
plane boat bicycle building house room door window wall floor table chair bed food plate cup
bottle glass bowl cake pizza fruit apple banana book phone computer screen clock bag shirt hat
shoe dress ball game player field riding sitting standing walking holding looking playing wearing
eating running flying made wood metal plastic cotton leather product brand price land forest farm
residential industrial highway pasture crop airport beach bridge desert harbor island lake
mountain parking satellite patient patients male female age history pain disease acute chronic
mild moderate severe benign malignant cancer tumor tumour tissue cell cells stain stained slide
biopsy histology pathology lesion lesions mass masses nodule nodules cyst cysts fluid air blood
vessel vessels artery arteries vein veins aorta aortic heart cardiac lung lungs pulmonary pleural
effusion pneumothorax pneumonia consolidation opacity opacities infiltrate atelectasis
cardiomegaly edema fibrosis emphysema liver hepatic spleen kidney kidneys renal pancreas stomach
bowel colon rectum bladder prostate uterus ovary breast skin muscle bone bones rib ribs spine
spinal vertebra vertebral skull brain cerebral cerebellum ventricle ventricles frontal temporal
parietal occipital lobe lobes hemisphere midline shift hemorrhage infarct stroke ischemia aneurysm
abscess fracture dislocation joint knee hip shoulder elbow wrist ankle femur tibia humerus pelvis
abdomen abdominal chest thorax thoracic neck cervical lumbar trachea esophagus mediastinum
diaphragm clavicle nerve gland thyroid lymph node nodes x-ray xray radiograph ct mri ultrasound
contrast enhanced weighted axial coronal sagittal lateral anterior posterior superior inferior
medial proximal distal bilateral unilateral diffuse focal dilated enlarged thickened calcified
calcification hyperdense hypodense hyperintense hypointense density intensity signal lucency
shadow line tube catheter device organ organs system modality diagnosis finding findings evidence
sign signs treatment surgery eosinophil neutrophil lymphocyte monocyte platelet basophil
erythroblast granulocyte melanoma nevus keratosis carcinoma dermatofibroma vascular epithelium
stroma mucosa mucus debris adipose smooth retina choroidal drusen
"""

GENERAL_WORDS: tuple[str, ...] = tuple(_WORDS.split())
