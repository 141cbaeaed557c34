#!/usr/bin/env python3
"""Write strings.json: the texts that every tokenizer of dsk is compared on with llama.cpp.

    python3 tests/golden/strings.py

Hand-written ones for what is known to be tricky, the others put together from parts by a generator
with a fixed seed. The output is the same on every run.
"""

import json
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent
# Texts made from random parts, on top of the hand-written and systematic ones.
MIXED = 260

CODE = [
    "def f(x):\n    return x**2 if x >= 0 else -x  # comment\n",
    "for (int i = 0; i < 10; ++i) { printf(\"%d\\n\", i); }\n",
    "fn main() -> Result<(), Box<dyn Error>> {\n\tlet v: Vec<_> = (0..=9).map(|x| x * x).collect();\n\tOk(())\n}",
    "SELECT a.id, COUNT(*) AS n FROM t1 a LEFT JOIN t2 b ON a.id=b.id WHERE b.x IS NOT NULL GROUP BY 1;",
    "const f = async ({a, ...rest}) => { await g?.(a ?? `t${rest.b}`); };",
    "<div class=\"a b\" data-x='1'>&nbsp;&lt;text&gt;</div><!-- c -->",
    "{\"key\": [1, 2.5e-10, null, true], \"nested\": {\"a\\u00e9\": \"\\n\"}}",
    "#!/bin/sh\nset -eu\nfor f in *.txt; do echo \"${f%.txt}\" | sed 's/a/b/g' >> out; done\n",
    "class A<T extends B<? super T>> implements C { @Override public int hashCode() { return 31; } }",
    "\\begin{equation} \\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2} \\end{equation}",
    "mov eax, DWORD PTR [rbp-0x14]\n\tcdqe\n\tlea rdx, [rax*4+0x0]",
    "a:\n  - b: 'c'\n    d: |\n      text\n\n      more\n",
    "template<class...Ts>struct overloaded:Ts...{using Ts::operator()...;};",
    "|>|<|=|!==|===|<=>|>>=|<<|::|->|=>|..=|...|&&|\\|\\||??|?.|",
    "snake_case camelCase PascalCase SCREAMING_CASE kebab-case x1y2z3 __init__ $var @decorator #hash",
    "0x1F 0b1010 0o17 1_000_000 1e9 3.14f 10L .5 5. 1..2",
    "if(a&&b||!c){d=e?f:g;}//end",
    "\t\t\tif x:\n\t\t\t\tpass\n\n\n\t\telse:\n  \t mixed",
    "git commit -m \"fix: don't crash\" && git push --force-with-lease origin HEAD:refs/heads/x",
    "https://example.com/path/to?q=1&r=%20a#frag user@example.org C:\\Users\\x\\file.txt /usr/lib/x86_64",
]

LANGUAGES = [
    "Der schnelle braune Fuchs springt über den faulen Hund. Straße, Größe, ÄÖÜ.",
    "Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter en canoë.",
    "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia; ¿qué más? ¡Olé!",
    "Příliš žluťoučký kůň úpěl ďábelské ódy. Zażółć gęślą jaźń.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "שלום עולם, מה שלומך היום? אני בסדר.",
    "مرحبا بالعالم، كيف حالك اليوم؟ السَّلَامُ عَلَيْكُمْ",
    "नमस्ते दुनिया, आप कैसे हैं? क्षत्रिय",
    "สวัสดีชาวโลก วันนี้เป็นอย่างไรบ้าง ภาษาไทยไม่มีช่องว่าง",
    "Xin chào thế giới, hôm nay bạn thế nào? Tiếng Việt có nhiều dấu.",
    "你好，世界！今天天气怎么样？我们去公园吧。",
    "繁體中文測試：臺灣的天氣非常好。",
    "こんにちは世界。カタカナとひらがなと漢字が混ざっています。ｶﾀｶﾅ",
    "안녕하세요 세계. 오늘 날씨가 어때요? 한글 테스트",
    "Türkçe: İstanbul'da ılık bir gün, ğüşiöç IĞDIR.",
    "Ελληνικά και English μαζί in one γραμμή",
    "ქართული ენა, հայերեն լեզու, አማርኛ ቋንቋ, ខ្មែរ, ລາວ, မြန်မာ, සිංහල, தமிழ், తెలుగు, ಕನ್ನಡ, മലയാളം",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt.",
    "It's what they're saying: we've, I'd, you'll, he's, I'm, don't, CAN'T, Y'ALL'D'VE, rock 'n' roll, 'tis",
    "“Smart quotes” and ‘single ones’ it’s — dashes – ellipsis… «guillemets» „low“",
]

EMOJI = [
    "🙂", "🙂🙃", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "1️⃣2️⃣", "❤️", "☺", "🤷🏿‍♀️ ok", "a🙂b", " 🙂 🙂 ", "🧑‍💻 codes",
    "😀😃😄😁😆😅🤣😂", "©®™", "→←↑↓⇒", "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋", "½ ¾ ⅓ ² ³ ₁ Ⅷ ① ㊿",
]

COMBINING = [
    "e\u0301", "a\u0300\u0301\u0302", "n\u0303o", "Z\u0351\u036b\u0343\u036aA\u0334L\u0335G\u0336O",
    "\u0301", " \u0301", "\u0301\u0301\u0301", "क\u094d\u0937", "\u200d", "\u200b\u200b", "\ufeffbom", "a\u00adb",
    "\u202eabc\u202c", "x\u0338", "ﬁ ligature ﬀ", "Ａｆｕｌｌ　ｗｉｄｔｈ１２", "Ǆ ǅ ǆ ſ ß ẞ",
]

SPACES = [
    "", " ", "  ", "   ", "    ", "\t", "\t\t", "\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", "\r", " \n", "\n ", " \n ",
    "  \n  \n  ", "\t\n\t", "a ", " a", " a ", "a  b", "a   b", "a \n b", "a\n\nb", "a\r\nb", "a\rb", "a\tb", "a \tb", "a\t b",
    "a\u00a0b", "\u00a0", "\u2003x", "\u3000全角", "\u2028line\u2029para", "\x0b\x0c", "\x85next", "a  ", "a\n", "a\n ", "a \n",
    " " * 17, " " * 64, " " * 127, "\n" * 20, "\t" * 15, " " * 31 + "x", "x" + " " * 33, (" " * 4 + "x\n") * 5, " \t" * 9,
]

CONTROLS = [
    "\x00", "a\x00b", "\x01\x02\x03", "\x1b[31mred\x1b[0m", "\x7f", "\x08\x08", "\u0080\u009f", "\x1c\x1d\x1e\x1f x", "\ufffd", "\uffff",
    "\U0010ffff", "\ue000 private", "\u0378 unassigned",
]

NUMBERS = [
    "0", "1", "12", "123", "1234", "12345", "123456", "1234567", "12345678901234567890", "1,234,567.89", "-1", "+1", "1.0", "3.14159265358979",
    "1e-5", "2024-01-31T23:59:59Z", "192.168.0.1", "100%", "$1,000", "€50", "1st 2nd 3rd 4th", "a1b2c3", "1a2b3c", "x123y", "007",
    " 1", " 12", " 123 ", "1 2 3", "1  2", "12 34 56", "٣٤٥", "१२३", "一二三", "１２３", "½1", "1½", "Ⅳ4", "²3", "1/2", "10:30", "#42", "v1.2.3-rc.4",
]

# Names of special tokens of any family: whole, cut short, with spaces, doubled, nested.
SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<|im_start|", "|im_start|>",
    "< |im_start|>", "<|im_start |>", "<|im_start|><|im_end|>", "<|im_start|> <|im_end|>", "x<|im_end|>y", " <|im_end|> ", "\n<|im_end|>\n",
    "<|im_<|im_end|>end|>", "<|IM_START|>", "<<|im_end|>>", "<think>", "</think>", "<think>\nhm\n</think>\n\nok", " <think> ", "<think", "think>",
    "<tool_call>\n{\"name\": \"f\"}\n</tool_call>", "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "<|fim_pad|>", "<|repo_name|>x<|file_sep|>y",
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>hi<｜Assistant｜>", "<｜User|>", "<|begin_of_text|><|eot_id|>", "<s>", "</s>", "<unk>",
    "<s>a</s>", "<pad>", "[INST] x [/INST]", "<0x0A>", "<0x41>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>", "<gh_stars>", "<jupyter_code>",
    "<issue_start>", "<empty_output>", "<|object_ref_start|>", "<|vision_pad|>", "<|quad_end|>", "<|box_start|>", "<｜▁pad▁｜>", "<|EOT|>", "▁", "▁▁a", "Ġ", "ĠĠa", "Ċ", "â",
]

LONG = [
    "a" * 300, "ab" * 200, "é" * 150, "日本" * 120, "🙂" * 60, "a b " * 80, "0123456789" * 30, "." * 200, "=" * 121, "-" * 77 + ">",
    "supercalifragilisticexpialidocious" * 6, "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "!?" * 90, "()" * 64, "'" * 40, "\"" * 41, "aA" * 99, "_" * 65, "\\n" * 50, "\U0001f468\u200d" * 20,
]

CONTRACTIONS = [quote + end for quote in ("'", "’") for end in ("s", "S", "t", "re", "RE", "Ve", "m", "ll", "LL", "d", "D", "x", "sx", "r", "")]


def byte_like():
    """One text for a sample of every block of characters."""
    starts = [0x21, 0xA0, 0x180, 0x370, 0x400, 0x530, 0x5D0, 0x620, 0x904, 0xE01, 0x10A0, 0x1100, 0x1E00, 0x2000, 0x2100, 0x2190,
              0x2200, 0x2500, 0x2600, 0x3041, 0x30A1, 0x3400, 0x4E00, 0xA000, 0xAC00, 0xF900, 0xFF01, 0x10400, 0x1D400, 0x1F300, 0x20000]
    return ["".join(chr(start + step) for step in range(24)) for start in starts]


def mixed():
    """Texts of random parts of the lists above."""
    rng = random.Random(20240131)
    parts = [part for group in (CODE, LANGUAGES, EMOJI, COMBINING, SPACES, CONTROLS, NUMBERS, SPECIAL, CONTRACTIONS) for part in group]
    glue = ["", "", " ", " ", "  ", "\n", "\n\n", "\t", ",", ". ", "'", "-", "_", "1", "a", "é", "。"]
    for _ in range(MIXED):
        text = ""
        for _ in range(rng.randint(2, 6)):
            part = rng.choice(parts)
            if len(part) > 12 and rng.random() < 0.7:
                start = rng.randrange(len(part) - 6)
                part = part[start:start + rng.randint(2, 24)]
            text += part + rng.choice(glue)
        yield text


def main():
    groups = [CODE, LANGUAGES, EMOJI, COMBINING, SPACES, CONTROLS, NUMBERS, SPECIAL, LONG, CONTRACTIONS, byte_like(), mixed()]
    strings = list(dict.fromkeys(text for group in groups for text in group))
    lines = ",\n".join(json.dumps(text) for text in strings)
    (HERE / "strings.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(strings)} strings")


if __name__ == "__main__":
    main()
