"""A phrase book: the Vietnamese that the emulated Claude knows."""

import re
import unicodedata


def translate(text: str) -> str:
    """Translates the phrases below into English. Other words stay as they are."""
    return _VIETNAMESE.sub(_say_in_english, unicodedata.normalize("NFC", text))


def _say_in_english(phrase: re.Match[str]) -> str:
    return _ENGLISH.get(phrase[0].lower(), phrase[0])


_ENGLISH = {
    "một": "a",
    "hai": "two",
    "những": "several",
    "và": "and",
    "với": "with",
    "của": "of",
    "trong": "in",
    "trên": "on",
    "dưới": "under",
    "bên": "beside",
    "cô gái": "young woman",
    "chàng trai": "young man",
    "em bé": "baby",
    "ông già": "old man",
    "bà cụ": "old woman",
    "người": "person",
    "con mèo": "cat",
    "con chó": "dog",
    "con chim": "bird",
    "con ngựa": "horse",
    "con rồng": "dragon",
    "áo dài": "in an ao dai",
    "nón lá": "conical hat",
    "đang đi": "walking",
    "đang ngồi": "sitting",
    "đang chạy": "running",
    "đang bay": "flying",
    "đang cười": "smiling",
    "cầu nhật bản": "the Japanese Bridge",
    "cầu": "bridge",
    "chùa": "pagoda",
    "nhà": "house",
    "làng": "village",
    "thành phố": "city",
    "đường phố": "street",
    "chợ": "market",
    "hội an": "Hoi An",
    "hà nội": "Hanoi",
    "sài gòn": "Saigon",
    "vịnh hạ long": "Ha Long Bay",
    "núi": "mountains",
    "biển": "sea",
    "bãi biển": "beach",
    "sông": "river",
    "hồ": "lake",
    "rừng": "forest",
    "ruộng lúa": "rice fields",
    "hoa sen": "lotus flowers",
    "hoa": "flowers",
    "cây": "tree",
    "mặt trời": "sun",
    "mặt trăng": "moon",
    "bầu trời": "sky",
    "hoàng hôn đẹp": "beautiful sunset",
    "hoàng hôn": "sunset",
    "bình minh": "dawn",
    "ban đêm": "at night",
    "mưa": "rain",
    "tuyết": "snow",
    "đèn lồng": "lanterns",
    "bàn gỗ": "wooden table",
    "cà phê": "coffee",
    "xe máy": "motorbike",
    "thuyền": "boat",
    "đẹp": "beautiful",
    "đỏ": "red",
    "xanh": "green",
    "vàng": "golden",
    "trắng": "white",
    "đen": "black",
    "tranh màu nước": "watercolor painting",
    "chân dung": "portrait",
    "phong cảnh": "landscape",
}
_VIETNAMESE = re.compile(rf"\b({'|'.join(sorted(_ENGLISH, key=len, reverse=True))})\b", re.IGNORECASE)
