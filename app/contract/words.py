"""What each field of a request or an answer means, for the API documentation.

One table, so that a field has the same words wherever it stands. A field that means something else in one
type has a row of its own there: `Type.field`.
"""

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

WORDS = {
    # ── /api/v1/image/*: requests ────────────────────────────────────────────────────────────────────────
    "model": "The model to use. Without it: imagen-3.0-generate-001. GET /api/v1/models lists every model; "
    "one that its vendor has switched off is replaced by its successor, and the answer names both.",
    "prompt": "What the picture should show.",
    "ImageUpscale.prompt": "Optional words for the model. They do not change what the picture shows.",
    "ImageEdit.prompt": "What to put into the masked area. Not needed to remove something.",
    "ImageCustomize.prompt": "What the picture should show. Cite a reference image by its referenceId in "
    "square brackets: [1]. Every number you cite must be the referenceId of a reference image.",
    "ProductRecontext.prompt": "The new scene around the product. Without it the model chooses one.",
    "sampleCount": "How many pictures to make, 1 to 4. Each is paid for.",
    "addWatermark": "Whether to add Google's invisible watermark (SynthID).",
    "TextToImage.addWatermark": "Whether to add Google's invisible watermark (SynthID). True unless a seed "
    "is given, and not to be combined with one.",
    "ProductRecontext.addWatermark": "Whether to add Google's invisible watermark (SynthID). True unless a "
    "seed is given, and not to be combined with one.",
    "seed": "With the same seed the same request makes the same picture again, or nearly. Not available when "
    "addWatermark is true.",
    "ImageCustomize.seed": "With the same seed the same request makes the same picture again, or nearly. A "
    "seed turns the watermark off.",
    "ProductRecontext.seed": "With the same seed the same request makes the same picture again, or nearly. "
    "Not available when addWatermark is true, and without effect when enhancePrompt is true.",
    "negativePrompt": "What the picture should not show.",
    "outputOptions": "The file format of the pictures.",
    "mimeType": "The file format of the picture: image/png or image/jpeg.",
    "compressionQuality": "Quality of a JPEG, from 0 (small file) to 100 (best picture).",
    "storageUri": "Store the pictures in this Cloud Storage folder, gs://bucket/folder, under one of the "
    "prefixes that the gateway allows. Predictions then hold gcsUri and url instead of the picture.",
    "safetySetting": "How strict the safety filter is, from block_low_and_above (strictest) to block_none "
    "(restricted to projects that Google allows).",
    "personGeneration": "Whom the picture may show: nobody, adults only, or people of all ages (restricted "
    "to projects that Google allows).",
    "aspectRatio": "Width to height of the picture. Without it the model chooses, mostly 1:1.",
    "sampleImageSize": "Size of the picture: 1K is about one megapixel; 2K, about four, only with some "
    "models.",
    "enhancePrompt": "Whether a language model improves the prompt first.",
    "responseFormat": "url stores the pictures and answers their URLs; b64_json answers the pictures in "
    "base64. Also accepted under the name response_format.",
    "image": "The picture to enlarge.",
    "upscaleFactor": "How many times wider and higher the picture becomes, to at most 17 megapixels.",
    "ImageEdit.referenceImages": "Two pictures: the one to edit (REFERENCE_TYPE_RAW) and its mask "
    "(REFERENCE_TYPE_MASK).",
    "ImageCustomize.referenceImages": "One to four pictures of subjects, of a style, or to follow as "
    "controls.",
    "EditReference.referenceType": "REFERENCE_TYPE_RAW is the picture to edit, REFERENCE_TYPE_MASK its mask.",
    "CustomizeReference.referenceType": "REFERENCE_TYPE_SUBJECT shows somebody or something to keep, "
    "REFERENCE_TYPE_STYLE a style to copy, REFERENCE_TYPE_CONTROL lines or a pose to follow.",
    "EditReference.referenceId": "A number that you choose; another one for each reference image.",
    "CustomizeReference.referenceId": "The number by which the prompt cites this image: 1 is cited as [1]. "
    "Choose another one for each subject; several pictures of one subject share their number.",
    "bytesBase64Encoded": "The reference image.",
    "EditReference.bytesBase64Encoded": "The reference image. A mask has the size of the picture to edit; "
    "what is not black in it is edited. Only MASK_MODE_USER_PROVIDED needs one: the other modes ignore it.",
    "maskImageConfig": "How the mask is made.",
    "maskMode": "MASK_MODE_USER_PROVIDED uses the mask that you send; the other modes find the background, "
    "the foreground, or things of the classes in maskClasses.",
    "dilation": "How far the mask grows beyond its edge, as a share of the picture's size: 0.01 is one "
    "percent.",
    "maskClasses": "Numbers of the kinds of things that MASK_MODE_SEMANTIC masks; required there, at most "
    "five.",
    "editMode": "What to do in the masked area: remove things, insert what the prompt says, swap the "
    "background, or continue the picture beyond its edge.",
    "baseSteps": "How many sampling steps the model takes. More are slower and may look better.",
    "guidanceScale": "How closely the model follows the prompt, 0 to 500. Without it 60, and 75 for "
    "EDIT_MODE_INPAINT_INSERTION.",
    "controlImageConfig": "What to follow in the picture, for REFERENCE_TYPE_CONTROL.",
    "controlType": "What is followed: a face's pose and expression, edges, or the lines of a sketch.",
    "enableControlImageComputation": "True when you send a photo, of which the model makes the control image "
    "itself; false when you send the finished control image.",
    "subjectImageConfig": "Whom or what the picture shows, for REFERENCE_TYPE_SUBJECT.",
    "subjectDescription": "The subject in a few words: a man with short hair.",
    "subjectType": "The kind of subject.",
    "styleImageConfig": "Which style the picture shows, for REFERENCE_TYPE_STYLE.",
    "styleDescription": "The style in a few words: watercolour.",
    "personImage": "The person to dress.",
    "VirtualTryOn.productImages": "The garments to put on. Most models take one.",
    "ProductRecontext.productImages": "One to three pictures of the same product, from different sides.",
    "ImageEdit.image": "The reference image. A mask has the size of the picture to edit; what is not black "
    "in it is edited. Only MASK_MODE_USER_PROVIDED needs one: the other modes ignore it.",
    "ImageCustomize.image": "The reference image.",
    "images": "The pictures.",
    "VirtualTryOn.images": "First the person, then the garments. Most models take one garment.",
    # ── /api/v1/image/*: answers ─────────────────────────────────────────────────────────────────────────
    "StoredImages.success": "Always true here.",
    "requestedModel": "The model that was asked for, if another one made the pictures.",
    "StoredImages.model": "The model that made the pictures.",
    "Predictions.model": "The model that made the pictures.",
    "url": "Where the picture can be fetched.",
    "filename": "The picture's file name.",
    "generatedAt": "When the picture was stored, in UTC.",
    "filtered": "Pictures that are missing, because the vendor's safety filters took them.",
    "pending": "Pictures that are made and paid for and wait for the storage. Their URLs will work.",
    "maskApplied": "How a model that knows no masks was held to one. exact: no pixel outside the mask has "
    "changed. instruction: the model was told in words what to change.",
    "predictions": "The pictures.",
    "Prediction.bytesBase64Encoded": "The picture in base64. Absent with storageUri.",
    "gcsUri": "Where the picture was stored. With storageUri only.",
    "raiFilteredReason": "The vendor's reason, with its support codes.",
    "errorCode": "The first support code that is known.",
    "category": "What the filter found, for example Violence.",
    "filteredOn": "Where it was found: in the prompt or in the output.",
    "hint": "What to change.",
    # ── /gen ─────────────────────────────────────────────────────────────────────────────────────────────
    "mode": "text2img makes a picture from words, img2img changes the picture that you send.",
    "Text2Img.prompt": "What the picture should show. A model that takes fewer characters gets the words "
    "that fit.",
    "Img2Img.prompt": "How to change the picture. A model that takes fewer characters gets the words that "
    "fit.",
    "negative_prompt": "What the picture should not show.",
    "regen_prompt": "Whether Claude improves the prompt first, and translates it if it is Vietnamese.",
    "prompt_language": "The prompt's language: vi (Vietnamese) or en (English).",
    "aspect_ratio": "Width to height of the picture.",
    "response_format": "b64_json answers the picture in base64; url stores it and answers its URL. Also "
    "accepted under the name responseFormat.",
    "init_image": "The picture to change. Without auto_resize both sides are 512 to 2048 pixels and "
    "divisible by 64.",
    "similarity_strength": "How much of the picture is kept: 0.7 to 0.9 keeps most of it, 0.3 to 0.5 changes "
    "a lot.",
    "auto_resize": "Whether the gateway fits a picture of any size to aspect_ratio.",
    "GenAnswer.status": "Always success here.",
    "image_base64": "The picture in base64. Absent with response_format url.",
    "image_url": "Where the picture can be fetched. With response_format url only.",
    "enhanced_prompt": "The text that was really drawn.",
    "model_used": "The model that made the picture.",
    "metadata": "How the picture was made.",
    "Metadata.model": "The model that made the picture.",
    "requested_model": "The document's model, if another one made the picture.",
    "Metadata.aspect_ratio": "The ratio that was asked for.",
    "dimensions": "True width and height of the picture in pixels: 1344x768.",
    "prompt_enhanced": "Whether Claude rewrote the prompt.",
    # ── login, profile ───────────────────────────────────────────────────────────────────────────────────
    "username": "The account's name.",
    "password": "The account's password.",
    "access_token": "The token: send it as `Authorization: Bearer …`.",
    "token_type": "Always Bearer.",
    "expires_in": "Seconds until the token expires.",
    "Profile.id": "The token's subject: the account's number here, or what an identity provider calls it.",
    "Profile.username": "The account's name, or null for a token of an identity provider that says none.",
    "exp": "When the token expires, in seconds since 1970 (Unix time).",
    # ── the catalogue ────────────────────────────────────────────────────────────────────────────────────
    "Model.id": "The model's name.",
    "vendor": "Whose cloud serves the model.",
    "family": "Models of one family take the same requests.",
    "short": "The model's short name in the names of stored files.",
    "location": "A region, for example us-west-2; `regional` and `global` stand for the gateway's two "
    "settings.",
    "operations": "What the model can do.",
    "capabilities": "Optional abilities that a request may ask for and another model may lack.",
    "prompt_characters": "The longest prompt that the model takes, or null.",
    "bedrock_id": "The model's name on Amazon Bedrock, if it has another one there.",
    "vertex_id": "The model's name on Vertex AI, if it has another one there.",
    "Model.status": "What the vendor says about the model: active, preview or retired.",
    "retires": "The day on which the vendor switches the model off, or null.",
    "source": "The page that says so.",
    "successor": "The model that serves when this one is gone, or null.",
    # ── errors ───────────────────────────────────────────────────────────────────────────────────────────
    "SafetyError.success": "False, if the support code is known.",
    "statusCode": "The HTTP status.",
    "message": "What was wrong: one sentence, or a list with a sentence for each broken rule.",
    "NestError.error": "The name of the status, with some errors.",
    "GenError.status": "Always error here.",
    "GenError.error": "What was wrong.",
    "details": "More about it, and what to do.",
}


def words(owner: str, field: str) -> str:
    """Returns what the field of this type means, or an empty text if the table has no row for it."""
    return WORDS.get(f"{owner}.{field}") or WORDS.get(field, "")


class Described(BaseModel):
    """Base of what is documented: in its JSON schema each field has its words, before those of its type."""

    @classmethod
    def __get_pydantic_json_schema__(cls, of: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(of)
        for name, field in handler.resolve_ref_schema(described).get("properties", {}).items():
            field["description"] = f"{words(cls.__name__, name)} {field.get('description', '')}".strip()
        return described
