"""QVision model family. Importing it registers it with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.modeling import QVisionForConditionalGeneration

AUTO_MODELS = (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText)
"""Auto classes that `QVisionForConditionalGeneration` is registered with."""

AutoConfig.register(QVisionConfig.model_type, QVisionConfig, exist_ok=True)
for auto_class in AUTO_MODELS:
    auto_class.register(QVisionConfig, QVisionForConditionalGeneration, exist_ok=True)
