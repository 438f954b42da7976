"""The descriptions of all fields in the API documentation.

One table, so that a field has the same description in every type. A row `Type.field` is for a type in which
the field has another meaning.
"""

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

WORDS = {
    # ── /api/v1/image/*: requests ────────────────────────────────────────────────────────────────────────
    "model": "The model to use. Default: imagen-3.0-generate-001. GET /api/v1/models lists every model. If "
    "the vendor has switched off a model, its successor serves the request, and the response names both.",
    "prompt": "What the picture should show.",
    "ImageUpscale.prompt": "Optional words for the model. They do not change what the picture shows.",
    "ImageEdit.prompt": "What to put into the masked area. Optional when you remove something.",
    "ImageCustomize.prompt": "What the picture should show. Cite a reference image by its referenceId in "
    "square brackets: [1]. Every number that you cite must be the referenceId of a reference image.",
    "ProductRecontext.prompt": "The new scene around the product. Without it the model chooses one.",
    "sampleCount": "How many pictures to make, 1 to 4. You pay for each.",
    "addWatermark": "Whether to add Google's invisible watermark (SynthID).",
    "TextToImage.addWatermark": "Whether to add Google's invisible watermark (SynthID). Default: true "
    "without a seed, false with one. True together with a seed is refused.",
    "ProductRecontext.addWatermark": "Whether to add Google's invisible watermark (SynthID). Default: true "
    "without a seed, false with one. True together with a seed is refused.",
    "seed": "The same request with the same seed makes nearly the same picture again. Not available when "
    "addWatermark is true.",
    "ImageCustomize.seed": "The same request with the same seed makes nearly the same picture again. A seed "
    "turns the watermark off.",
    "ProductRecontext.seed": "The same request with the same seed makes nearly the same picture again. Not "
    "available when addWatermark is true. Has no effect when enhancePrompt is true.",
    "negativePrompt": "What the picture should not show.",
    "outputOptions": "The file format of the pictures.",
    "mimeType": "The file format of the picture: image/png or image/jpeg.",
    "compressionQuality": "Quality of a JPEG, from 0 (small file) to 100 (best picture).",
    "storageUri": "Store the pictures in this Cloud Storage folder, gs://bucket/folder, under one of the "
    "prefixes that the gateway allows. Predictions then hold gcsUri and url instead of the picture.",
    "safetySetting": "How strict the safety filter is, from block_low_and_above (strictest) to block_none "
    "(restricted to projects that Google allows).",
    "personGeneration": "Which people the picture may show: none, adults only, or all ages (restricted "
    "to projects that Google allows).",
    "aspectRatio": "The ratio of the picture's width to its height. Without it the model chooses, "
    "mostly 1:1.",
    "sampleImageSize": "The size of the picture. 1K is about one megapixel, 2K about four. Only some models "
    "support 2K.",
    "enhancePrompt": "Whether a language model improves the prompt before the picture is made.",
    "responseFormat": "url: the pictures are stored, and the response holds their URLs. b64_json: the "
    "response holds the pictures in base64. The spelling response_format is accepted too.",
    "image": "The picture to enlarge.",
    "upscaleFactor": "How many times wider and higher the picture becomes, to at most 17 megapixels.",
    "ImageEdit.referenceImages": "Two pictures: the one to edit (REFERENCE_TYPE_RAW) and its mask "
    "(REFERENCE_TYPE_MASK).",
    "ImageCustomize.referenceImages": "One to four pictures that show subjects, a style, or a control image.",
    "EditReference.referenceType": "REFERENCE_TYPE_RAW is the picture to edit, REFERENCE_TYPE_MASK its mask.",
    "CustomizeReference.referenceType": "REFERENCE_TYPE_SUBJECT shows a person or a thing to keep, "
    "REFERENCE_TYPE_STYLE a style to copy, REFERENCE_TYPE_CONTROL lines or a pose to follow.",
    "EditReference.referenceId": "A number that you choose, different for each reference image.",
    "CustomizeReference.referenceId": "The number by which the prompt cites this image: 1 is cited as [1]. "
    "Use a different number for each subject. Several pictures of one subject share a number.",
    "bytesBase64Encoded": "The reference image.",
    "EditReference.bytesBase64Encoded": "The reference image. A mask has the same size as the picture to "
    "edit; the area that is not black is edited. Only MASK_MODE_USER_PROVIDED needs a mask picture; the "
    "other modes ignore it.",
    "maskImageConfig": "How the mask is made.",
    "maskMode": "MASK_MODE_USER_PROVIDED uses the mask that you send. In the other modes the model finds the "
    "background, the foreground, or the objects of maskClasses.",
    "dilation": "How far the mask grows beyond its edge, as a share of the picture's size: 0.01 is one "
    "percent.",
    "maskClasses": "Google's class numbers of the objects that MASK_MODE_SEMANTIC masks: one to five, "
    "required in that mode.",
    "editMode": "What to do in the masked area: remove objects, insert what the prompt describes, swap the "
    "background, or extend the picture beyond its edge.",
    "baseSteps": "How many sampling steps the model takes. More are slower and may look better.",
    "guidanceScale": "How closely the model follows the prompt, 0 to 500. Default: 75 for "
    "EDIT_MODE_INPAINT_INSERTION, else 60.",
    "controlImageConfig": "What to follow in the picture, for REFERENCE_TYPE_CONTROL.",
    "controlType": "What the model follows: a face's pose and expression, edges, or the lines of a sketch.",
    "enableControlImageComputation": "True if you send a photo, from which the model makes the control "
    "image; false if you send the finished control image.",
    "subjectImageConfig": "The person or the thing that the picture shows, for REFERENCE_TYPE_SUBJECT.",
    "subjectDescription": "The subject in a few words: a man with short hair.",
    "subjectType": "The kind of subject.",
    "styleImageConfig": "Which style the picture shows, for REFERENCE_TYPE_STYLE.",
    "styleDescription": "The style in a few words: watercolour.",
    "personImage": "The person to dress.",
    "VirtualTryOn.productImages": "The garments to put on. Most models take one.",
    "ProductRecontext.productImages": "One to three pictures of the same product, from different sides.",
    "ImageEdit.image": "The reference image. A mask has the same size as the picture to edit; the area that "
    "is not black is edited. Only MASK_MODE_USER_PROVIDED needs a mask picture; the other modes ignore it.",
    "ImageCustomize.image": "The reference image.",
    "images": "The pictures.",
    "VirtualTryOn.images": "First the person, then the garments. Most models take one garment.",
    # ── /api/v1/image/*: responses ───────────────────────────────────────────────────────────────────────
    "StoredImages.success": "Always true here.",
    "requestedModel": "The model of the request, if another model made the pictures.",
    "StoredImages.model": "The model that made the pictures.",
    "Predictions.model": "The model that made the pictures.",
    "url": "Where the picture can be fetched.",
    "filename": "The picture's file name.",
    "generatedAt": "When the picture was stored, in UTC.",
    "filtered": "The reasons for pictures that the vendor's safety filters removed.",
    "failed": "Why other pictures are missing: one entry for each that was lost to a quota, an outage, the "
    "deadline, or a broken picture in the vendor's response. It may have been paid for.",
    "Failed.message": "What happened: a short text for people, which can change.",
    "receiptId": "The id of the receipt, if the outcome is unknown and the request may be charged.",
    "pending": "Pictures that are paid for but not stored yet. Their URLs will work later.",
    "maskApplied": "How the mask was applied, if the model does not support masks. exact: no pixel outside "
    "the mask has changed. instruction: the prompt described the area; other pixels may have changed.",
    "predictions": "The pictures.",
    "Prediction.bytesBase64Encoded": "The picture in base64. Absent if storageUri was given.",
    "gcsUri": "Where the picture was stored. Only present if storageUri was given.",
    "raiFilteredReason": "The vendor's reason, with its support codes.",
    "errorCode": "The vendor's support code. If there are several, the first known one.",
    "category": "What the filter found, for example Violence.",
    "filteredOn": "Where the filter found it: in the prompt or in the output.",
    "hint": "What to change.",
    # ── /gen ─────────────────────────────────────────────────────────────────────────────────────────────
    "mode": "text2img makes a picture from words; img2img changes the picture that you send.",
    "Text2Img.prompt": "What the picture should show. If the model accepts fewer characters, the prompt is "
    "cut after the last word that fits.",
    "Img2Img.prompt": "How to change the picture. If the model accepts fewer characters, the prompt is cut "
    "after the last word that fits.",
    "negative_prompt": "What the picture should not show.",
    "regen_prompt": "Whether Claude improves the prompt first, and translates it if it is Vietnamese.",
    "prompt_language": "The prompt's language: vi (Vietnamese) or en (English).",
    "aspect_ratio": "The ratio of the picture's width to its height.",
    "response_format": "b64_json: the response holds the picture in base64. url: the picture is stored, "
    "and the response holds its URL. The spelling responseFormat is accepted too.",
    "init_image": "The picture to change. Without auto_resize both sides are 512 to 2048 pixels and "
    "divisible by 64.",
    "similarity_strength": "How much of the picture is kept. 0.7 to 0.9 keeps most of it; 0.3 to 0.5 changes "
    "a lot.",
    "auto_resize": "Whether the gateway fits a picture of any size to aspect_ratio.",
    "GenAnswer.status": "Always success here.",
    "image_base64": "The picture in base64. Absent if response_format is url.",
    "image_url": "Where the picture can be fetched. Only present if response_format is url.",
    "enhanced_prompt": "The prompt that the picture was made from.",
    "model_used": "The model that made the picture.",
    "metadata": "How the picture was made.",
    "Metadata.model": "The model that made the picture.",
    "requested_model": "The default model of this mode, if another model made the picture.",
    "Metadata.aspect_ratio": "The aspect ratio of the request.",
    "dimensions": "The actual width and height of the picture in pixels, for example 1344x768.",
    "prompt_enhanced": "Whether Claude rewrote the prompt.",
    # ── login, profile ───────────────────────────────────────────────────────────────────────────────────
    "username": "The account's name.",
    "password": "The account's password.",
    "access_token": "The token. Send it in the header `Authorization: Bearer …`.",
    "token_type": "Always Bearer.",
    "expires_in": "Seconds until the token expires.",
    "Profile.id": "The account's id, here or at the identity provider.",
    "Profile.username": "The account's name, or null if an identity provider's token has none.",
    # ── receipts and usage ───────────────────────────────────────────────────────────────────────────────
    "receipts": "The receipts, the newest first.",
    "nextCursor": "The cursor of the next page, or null on the last page.",
    "Receipt.id": "The receipt's id, as in the response's header X-Receipt-Id.",
    "operation": "What the request asked for, for example text-to-image.",
    "createdAt": "When the request arrived, in UTC.",
    "Receipt.costUsd": "What the request cost, in US dollars with six decimals. Calls that are not finished "
    "count 0.",
    "priced": "False if a model has no price. Its calls are listed with a cost of 0.",
    "replayed": "Whether the response was sent again, without a charge, for the same Idempotency-Key.",
    "calls": "The calls to vendors that the request made.",
    "ReceiptCall.model": "The model that was called.",
    "ReceiptCall.state": "reserved: not sent yet. sent: under way. settled: the vendor served it. void: the "
    "vendor did not serve it, so it costs nothing. unknown: it was sent, and its outcome is not known. "
    "abandoned: it was cancelled after it was sent. Unknown and abandoned calls are charged.",
    "samples": "How many pictures the call asked for: 0 for a rewritten prompt.",
    "ReceiptCall.costUsd": "What the call cost, in US dollars with six decimals.",
    "sentAt": "When the call was sent, in UTC, or null.",
    "finishedAt": "When the call ended, in UTC, or null.",
    "pictures": "The pictures that were stored.",
    "ReceiptPicture.url": "Where the picture can be fetched, or null if it is kept privately.",
    "usage": "Your budgets. A unit without a budget has an entry for this month.",
    "unit": "What is counted: US dollars or pictures.",
    "period": "The period of the budget: a day or a month in UTC, or all time (total).",
    "UsedBudget.limit": "How much you can spend in the period, or null without a limit. US dollars are "
    "strings with six decimals, pictures are integers.",
    "spent": "How much is spent.",
    "reserved": "How much is reserved for calls that are not finished. It counts against the limit.",
    "resetsAt": "When the period ends, in UTC, or null for total.",
    "exp": "When the token or the API key expires, in seconds since 1970 (Unix time).",
    # ── the catalogue ────────────────────────────────────────────────────────────────────────────────────
    "Model.id": "The model's id.",
    "vendor": "The vendor whose cloud serves the model.",
    "family": "The format of requests, which all models of a family share.",
    "short": "The model's short name in the names of stored files.",
    "location": "A region, for example us-west-2. `regional` and `global` stand for the settings "
    "VERTEX_LOCATION and VERTEX_GEMINI_LOCATION.",
    "operations": "What the model can do.",
    "capabilities": "Optional features of requests that the model supports.",
    "prompt_characters": "The most characters of a prompt, or null if the vendor names no limit.",
    "bedrock_id": "The model's id on Amazon Bedrock, if it is different there.",
    "vertex_id": "The model's id on Vertex AI, if it is different there.",
    "Model.status": "The model's status at the vendor: active, preview or retired.",
    "retires": "The day on which the vendor switches the model off, or null.",
    "source": "The vendor's page with the status and the dates.",
    "successor": "The model that serves requests after the vendor has switched this one off, or null.",
    # ── readiness ────────────────────────────────────────────────────────────────────────────────────────
    "Health.status": "failed if a required part has failed. degraded if all required parts work, but "
    "something is wrong.",
    "parts": "The parts by name.",
    "PartHealth.status": "degraded: it works, but something is wrong. The gateway's log says what.",
    "PartHealth.required": "Whether the gateway needs the part. It needs a vendor while no other one works.",
    # ── errors ───────────────────────────────────────────────────────────────────────────────────────────
    "SafetyError.success": "Always false. Only present if the support code is known.",
    "statusCode": "The HTTP status.",
    "message": "What was wrong: one sentence, or a list with one sentence for each broken rule.",
    "NestError.error": "The name of the status. Some errors do not have it.",
    "GenError.status": "Always error here.",
    "GenError.error": "What was wrong.",
    "details": "Details of the error, and what to do.",
}


def words(owner: str, field: str) -> str:
    """Returns the description of a field of the type `owner`, or "" if the table has no row for it."""
    return WORDS.get(f"{owner}.{field}") or WORDS.get(field, "")


class Described(BaseModel):
    """Base of documented types. In the JSON schema a field's description comes before that of its type."""

    @classmethod
    def __get_pydantic_json_schema__(cls, of: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(of)
        for name, field in handler.resolve_ref_schema(described).get("properties", {}).items():
            field["description"] = f"{words(cls.__name__, name)} {field.get('description', '')}".strip()
        return described
