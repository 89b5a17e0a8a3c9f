"""Secrets that are known by their own form: the prefixes that vendors document, and a few others.

Lengths are lower bounds, because vendors lengthen their tokens.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from clara_mlx.tool_outputs.secret_values import consists_of_words

Found = tuple[int, int, str]  # start, end, kind

# What begins a token, as an expression that starts with a character, and what follows it. Where one
# beginning is that of another, the longer one comes first.
_VENDORS: dict[str, dict[str, str]] = {
    "aws key id": {"(?:AKIA|ASIA|ABIA|ACCA)": "[A-Z2-7]{16}"},
    "aws bedrock key": {
        "ABSK": "[A-Za-z0-9+/]{60,255}+=*",
        "bedrock-api-key-": "[A-Za-z0-9+/=]{20,2000}+",
    },
    "alibaba key id": {"LTAI": "[A-Za-z0-9]{12,24}(?![A-Za-z0-9])"},
    "tencent key id": {"AKID": "[A-Za-z0-9]{32}(?![A-Za-z0-9])"},
    "github token": {"gh[pousr]_": "[A-Za-z0-9]{30,255}+", "github_pat_": "[A-Za-z0-9_]{22,255}+"},
    "gitlab token": {
        "gl(?:pat|ptt|dt|rt|rtr|cbt|ft|soat|agent|imt|oas|ffct|wt)-": "[\\w.-]{16,320}+",
        "GR1348941": "[\\w-]{20,64}+",
    },
    "atlassian token": {"AT(?:ATT|CTT|STT|BB)": "[\\w=+/-]{20,400}+"},
    "bitbucket token": {"BBDC-": "[A-Za-z0-9+/@_-]{40,80}+"},
    "slack token": {
        "xoxe\\.xox[bp]-": "[\\w-]{10,255}+",
        "xox[abceopdrs]-": "[\\w-]{10,255}+",
        "xapp-": "[\\w-]{10,255}+",
        "xwfp-": "[\\w-]{10,255}+",
    },
    "anthropic key": {"sk-ant-": "[\\w-]{16,255}+"},
    "openrouter key": {"sk-or-": "[\\w-]{16,255}+"},
    "openai key": {"sk-": "(?:(?:proj|svcacct|admin)-)?[A-Za-z0-9][\\w-]{18,255}+"},
    "xai key": {"xai-": "[A-Za-z0-9]{20,255}+"},
    "groq key": {"gsk_": "[A-Za-z0-9]{20,255}+"},
    "perplexity key": {"pplx-": "[A-Za-z0-9]{20,255}+"},
    "nvidia key": {"nvapi-": "[\\w-]{20,255}+"},
    "cerebras key": {"csk-": "[a-z0-9]{32,255}+"},
    "fireworks key": {"fw_": "[A-Za-z0-9]{20,255}+"},
    "together key": {"tgp_v1_": "[\\w-]{20,255}+"},
    "langsmith key": {"lsv2_(?:pt|sk)_": "[A-Za-z0-9_]{20,255}+"},
    "pinecone key": {"pcsk_": "[A-Za-z0-9_]{20,255}+"},
    "tavily key": {"tvly-": "[\\w-]{16,255}+"},
    "jina key": {"jina_": "[\\w-]{30,255}+"},
    "firecrawl key": {"fc-": "[0-9a-f]{32}(?![\\w-])"},
    "e2b key": {"e2b_": "[0-9a-f]{30,255}+", "sk_e2b_": "[0-9a-f]{30,255}+"},
    "elevenlabs key": {"sk_": "[0-9a-f]{40,64}(?![A-Za-z0-9_])"},
    "hugging face token": {"(?:hf|api_org)_": "[A-Za-z0-9]{20,255}+"},
    "replicate token": {"r8_": "[A-Za-z0-9]{30,255}+"},
    "wandb key": {"wandb_v1_": "[A-Za-z0-9_]{20,255}+"},
    "cursor key": {"(?:key|crsr)_": "[0-9a-f]{64}(?![A-Za-z0-9_])"},
    "google key": {
        "AIza": "[\\w-]{30,255}+",
        "AQ\\.Ab": "[\\w-]{20,255}+",
        "ya29\\.": "[\\w.-]{20,1000}+",
        "GOCSPX-": "[\\w-]{20,255}+",
        "1//0": "[\\w-]{30,255}+",
        "4/0A": "[\\w-]{30,255}+",
    },
    "stripe key": {
        "(?:s|r|p)k_(?:live|test|prod)_": "[A-Za-z0-9]{10,255}+",
        "whsec_": "[A-Za-z0-9+/=]{16,255}+",
    },
    "square token": {
        "EAAA": "[\\w-]{56,70}(?![\\w+/=-])",
        "sq0(?:atp|csp|idp)-": "[\\w-]{20,255}+",
    },
    "facebook token": {"EAA": "[A-Za-z0-9]{60,512}+(?![\\w+/=-])"},
    "npm token": {"npm_": "[A-Za-z0-9]{30,255}+"},
    "pypi token": {"pypi-": "[\\w-]{40,512}+"},
    "rubygems key": {"rubygems_": "[0-9a-f]{40,255}+"},
    "crates.io token": {"cio": "[A-Za-z0-9]{32}(?![A-Za-z0-9])"},
    "nuget key": {"oy2": "[a-z0-9]{43}(?![A-Za-z0-9])"},
    "clojars token": {"CLOJARS_": "[a-z0-9]{50,255}+"},
    "packagist token": {"packagist_(?:[ou][ru]t|ut)_": "[0-9a-f]{32,255}+"},
    "jfrog token": {"AKCp": "[A-Za-z0-9]{60,80}+", "cmVmdGtu": "[A-Za-z0-9]{50,255}+"},
    "docker token": {"dckr_(?:pat|oat)_": "[\\w-]{20,255}+"},
    "quay token": {"quay_": "[A-Za-z0-9]{30,255}+"},
    "sendgrid key": {"SG\\.": "[\\w-]{16,255}+\\.[\\w-]{16,255}+"},
    "twilio key": {"SK": "[0-9a-f]{32}(?![\\w-])"},
    "mailgun key": {"key-": "[0-9a-f]{32}(?![\\w-])", "pubkey-": "[0-9a-f]{32}(?![\\w-])"},
    "brevo key": {"x(?:keysib|smtpsib)-": "[0-9a-f]{64}-[A-Za-z0-9]{10,32}+"},
    "resend key": {"re_": "[A-Za-z0-9]{6,12}_[A-Za-z0-9]{20,64}+"},
    "klaviyo key": {"pk_": "[0-9a-f]{34}(?![A-Za-z0-9_])"},
    "clickup token": {"pk_": "\\d{4,12}_[A-Z0-9]{32}(?![A-Za-z0-9_])"},
    "digitalocean token": {"do[opr]_v1_": "[0-9a-f]{40,255}+"},
    "databricks token": {"(?:dapi|dkea|dsapi|dose)": "[0-9a-f]{32}(?:-\\d{1,2})?(?![\\w])"},
    "dbt token": {"dbt[cu]_": "[\\w-]{30,255}+"},
    "grafana token": {"gl(?:sa|c)_": "[\\w+/=-]{20,512}+"},
    "shopify token": {"shp(?:at|ca|pa|ss|ua|tka)_": "[0-9a-fA-F]{32,64}+"},
    "linear key": {"lin_(?:api|oauth|wh)_": "[A-Za-z0-9]{30,255}+"},
    "notion token": {"ntn_": "[A-Za-z0-9]{30,255}+", "secret_": "[A-Za-z0-9]{43}(?![A-Za-z0-9_])"},
    "airtable token": {"pat": "[A-Za-z0-9]{14}\\.[0-9a-f]{50,80}+"},
    "figma token": {"fig(?:d|o|uh|ut|or)_": "[\\w-]{30,255}+"},
    "hubspot token": {"pat-(?:na|eu|ap)\\d-": "[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}"},
    "contentful token": {"CFPAT-": "[\\w-]{30,255}+"},
    "trello token": {"ATTA": "[0-9a-fA-F]{50,90}+"},
    "typeform token": {"tfp_": "[\\w.=-]{30,255}+"},
    "dropbox token": {"sl\\.(?:[A-Z]|u\\.)": "[\\w-]{60,2000}+"},
    "mapbox token": {"sk\\.eyJ": "[\\w-]{20,400}+\\.[\\w-]{16,100}+"},
    "vault token": {
        "hv[sbr]\\.": "[\\w-]{20,512}+",
        "s\\.": "(?=[a-zA-Z]{0,23}\\d)[A-Za-z0-9]{24}(?![\\w.(])",
    },
    "doppler token": {"dp\\.(?:pt|st|ct|sa|scim|audit)\\.": "[\\w.-]{20,255}+"},
    "1password token": {
        "ops_eyJ": "[\\w=-]{20,8192}+",
        "A3-": "[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}",
    },
    "infisical token": {"st\\.": "[0-9a-f]{24}\\.[\\w.]{20,255}+"},
    "pulumi token": {"pul-": "[0-9a-f]{40,255}+"},
    "tailscale key": {
        "tskey-(?:auth|api|client|scim|webhook|oauth|[a-z]{2,10})-": "[\\w-]{10,255}+"
    },
    "ngrok token": {"(?:ak|cr|ek)_": "[A-Za-z0-9]{25,40}(?![A-Za-z0-9_])"},
    "sentry token": {"sntry[usi]_": "[\\w+/=.-]{30,512}+"},
    "supabase key": {"sbp_": "[0-9a-z_]{30,255}+", "sb_secret_": "[\\w-]{16,255}+"},
    "planetscale token": {"pscale_(?:tkn|pw|oauth|api|app)_": "[\\w=.-]{20,255}+"},
    "neon key": {"napi_": "[a-z0-9]{30,255}+"},
    "mongodb key": {"mdb_sa_sk_": "[\\w-]{20,255}+"},
    "prefect key": {"pn[ub]_": "[A-Za-z0-9]{30,255}+"},
    "postman key": {"PMAK-": "[0-9a-f]{20,32}-[0-9a-f]{30,40}+"},
    "readme key": {"rdme_": "[a-z0-9]{50,255}+"},
    "sourcegraph token": {"sgp_": "[A-Za-z0-9_]{32,255}+", "slk_": "[0-9a-f]{50,255}+"},
    "sonar token": {"sq[upa]_": "[0-9a-f]{40}(?![A-Za-z0-9])"},
    "circleci token": {"CCIP(?:AT|RJ)_": "[A-Za-z0-9]{10,64}_[0-9a-f]{30,64}+"},
    "buildkite token": {"bk(?:ua|ct|at|pt)_": "[A-Za-z0-9]{30,255}+"},
    "netlify token": {"nf[pcou]_": "[A-Za-z0-9]{30,255}+"},
    "vercel token": {"vc[pkair]_": "[A-Za-z0-9]{20,255}+"},
    "fly token": {"(?:fo1|fm1|fm2|fm1r|fm1a)_": "[\\w+/=-]{30,4096}+"},
    "heroku key": {"HRKU-": "[\\w-]{30,255}+"},
    "render key": {"rnd_": "[A-Za-z0-9]{24,255}+"},
    "cloudflare token": {
        "v1\\.0-": "[0-9a-f]{24}-[0-9a-f]{100,200}+",
        "cf(?:ut|at|k)_": "[\\w-]{30,255}+",
    },
    "launchdarkly key": {
        "(?:sdk|mob|api)-": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    },
    "new relic key": {"NR(?:AK|AA|AL|BR|II|IQ|JS|RA)-": "[\\w-]{20,64}+"},
    "dynatrace token": {"dt0[a-z]\\d{2}\\.": "[A-Z0-9]{8,24}\\.[A-Z0-9]{40,64}+"},
    "honeycomb key": {"hc[ab][a-z]{2}_": "[a-z0-9]{40,80}+"},
    "posthog key": {"ph[xs]_": "[A-Za-z0-9]{30,64}+"},
    "okta token": {"SSWS ": "[\\w-]{30,64}+"},
    "openshift token": {"sha256~": "[\\w-]{43}"},
    "octopus key": {"API-": "[A-Z0-9]{25,32}(?![A-Za-z0-9])"},
    "plaid token": {
        "access-(?:sandbox|development|production)-": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,24}"
    },
    "braintree token": {"access_token\\$(?:production|sandbox)\\$": "[0-9a-z]{16}\\$[0-9a-f]{32}"},
    "razorpay key": {"rzp_(?:live|test)_": "[A-Za-z0-9]{14,32}+"},
    "easypost key": {"EZ[AT]K": "[A-Za-z0-9]{50,60}+"},
    "shippo token": {"shippo_(?:live|test)_": "[0-9a-f]{40}"},
    "flutterwave key": {"FLWSECK(?:_TEST)?-": "[\\w-]{12,64}+"},
    "paddle key": {"pdl_(?:live|sdbx)_apikey_": "[\\w-]{30,128}+"},
    "duffel token": {"duffel_(?:live|test)_": "[\\w-]{40,64}+"},
    "yandex key": {"AQVN": "[\\w-]{30,64}+", "y[0-3]_": "[\\w-]{50,100}+"},
    "adafruit key": {"aio_": "[A-Za-z0-9]{28}(?![A-Za-z0-9_])"},
    "apify token": {"apify_api_": "[A-Za-z0-9]{30,64}+"},
    "browserbase key": {"bb_live_": "[\\w-]{20,64}+"},
    "wakatime key": {"waka_": "[0-9a-f]{8}-[0-9a-f-]{27}"},
    "infracost key": {"ico-": "[A-Za-z0-9]{32}(?![A-Za-z0-9])"},
    "frame.io token": {"fio-u-": "[\\w=-]{40,80}+"},
    "mailersend key": {"mlsn\\.": "[0-9a-f]{60,80}+"},
    "pypi mirror token": {"cfp_": "[A-Za-z0-9]{30,64}+"},
    "age key": {"AGE-SECRET-KEY-": "[0-9A-Z]{40,70}+"},
}


_PARTS = 12  # patterns for all vendors' tokens


def _alternatives(beginning: str) -> list[str]:
    """A beginning's forms, each with a first character of its own."""
    group = re.fullmatch(r"\(\?:([^()]++)\)(.*+)", beginning)
    return [first + group[2] for first in group[1].split("|")] if group else [beginning]


def _any_token(boundary: str, part: int) -> str:
    """The tokens of a part of all vendors; the search skips what is no beginning of one.

    Args:
        boundary: What must hold at the first character, which has been read.
        part: Which of `_PARTS`; one pattern for all would be too large to be proved linear.
    """
    tokens: defaultdict[str, list[str]] = defaultdict(list)
    beginnings: defaultdict[str, list[str]] = defaultdict(list)
    for number, forms in enumerate(_VENDORS.values()):
        if number % _PARTS != part:
            continue
        grouped: defaultdict[str, list[str]] = defaultdict(list)
        for beginning, rest in forms.items():
            for form in _alternatives(beginning):
                beginnings[form[0]].append(form[1:])
                grouped[form[0]].append(form[1:] + rest)
        for first, each in grouped.items():
            tokens[first].append(f"(?P<g{number}_{ord(first)}>{'|'.join(each)})")
    return "|".join(
        f"{first}{boundary}(?={'|'.join(beginnings[first])})(?:{'|'.join(each)})"
        for first, each in tokens.items()
    )


_NAMES = tuple(_VENDORS)
_WORD_BEGINS = "(?<![A-Za-z0-9_].)"
_TOKEN = tuple(re.compile(_any_token(_WORD_BEGINS, part)) for part in range(_PARTS))
_TOKEN_HERE = tuple(re.compile(_any_token("", part)) for part in range(_PARTS))
# What is no part of a word though it ends in a letter or digit: \\n, %20, \\u003d, a colour.
# %20abcdefghijkl
_ESCAPE = re.compile(
    r"(?:\\(?:[nrtbfv]|u[0-9a-fA-F]{4})|%[0-9A-F]{2}|\[(?:\d{1,3};){0,4}\d{1,3}m)(?=[A-Za-z1-4][^\s\\%\"']{11})"
)

# A token whose beginning may be any; in its middle or at its end is what it is known by.
# 12345678:AAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
_MIDDLE = re.compile(
    r":(?:(?<=\d{8}:)(?P<telegram>AA[\w-]{32,40}+)|(?<=/\d{13}:)(?P<asana>[0-9a-f]{32}(?![0-9a-f])))"
    r"|\.(?:(?<=[A-Za-z0-9]{14}\.)(?P<terraform>atlasv1\.[\w=-]{50,100}+)"
    r"|(?<=[\w-]{24}\.)(?P<discord>[\w-]{6}\.[\w-]{27,50}+(?![\w.-])))"
    r"|AZDO(?<=[A-Za-z0-9]{76}AZDO)(?P<azure_pat>[A-Za-z0-9]{4}(?![A-Za-z0-9]))"
    r"|[78]Q~(?<=[A-Za-z0-9_~.-]{3}.Q~)(?P<azure>[\w~.-]{31,34}(?![\w~-]))"
    r"|NRAL(?<=[0-9a-fA-F]{36}NRAL)(?P<new_relic>(?!\w))"
    r"|-us(?<=[0-9a-f]{32}-us)(?P<mailchimp>\d{1,2}(?!\w))"
    r"|\|(?<=\d{15}\|)(?P<facebook>[\w-]{27}(?![\w-]))"
)
# What stands before each, up to the end of what is looked at, and its characters at most.
_BEFORE = {
    "telegram": (re.compile(r"(?<!\d)\d{8,10}+:\Z"), 11),
    "asana": (re.compile(r"(?<![\w/])(?:\d/)?\d{13,20}+(?:/\d{13,20}+)?:\Z"), 45),
    "terraform": (re.compile(r"[A-Za-z0-9]{14}\.\Z"), 15),
    "discord": (re.compile(r"(?<![\w-])[MNO][\w-]{23,29}+\.\Z"), 32),
    "azure_pat": (re.compile(r"\A[A-Za-z0-9]{76}AZDO\Z"), 80),
    "azure": (re.compile(r"[\w~.-]{3}.Q~\Z"), 6),
    "new_relic": (re.compile(r"\A[0-9a-fA-F]{36}NRAL\Z"), 40),
    "mailchimp": (re.compile(r"[0-9a-f]{32}-us\Z"), 35),
    "facebook": (re.compile(r"(?<!\d)\d{15,16}+\|\Z"), 17),
}

# abcdefgh.eyJabcd.
_JWT = re.compile(r"\.eyJ(?<=[\w-]{8}\.eyJ)(?=([\w-]{4,8192}+\.[\w-]{0,8192}+))")
# eyJabcdefgh
_LAST_WORD = re.compile(r"(?<![\w-])[\w-]++\Z")
_JWT_HEADER = 8_192  # characters

# Private keys of Kubernetes' and others' files, in Base64 as a whole: of RSA, EC, none, OPENSSH,
# ENCRYPTED and DSA.
# LS0tLS1CRUdJTiBSU0EgUAAAAAAAAAAAA
_BASE64_PEM = re.compile(
    r"LS0tLS1CRUdJTiB(?:SU0EgU|FQyBQU|QUklWQ|PUEVOU|FTkNSW|EU0EgU)[A-Za-z0-9+/]{8,20000}+=*+"
)


def vendor_tokens(text: str) -> Iterator[Found]:
    """Tokens of vendors, each with the vendor's name."""
    for pattern in _TOKEN:
        place = 0
        while found := pattern.search(text, place):
            place = found.end()
            yield from _named(found)
            yield from _here(text, place)  # another one may follow immediately
    for escape in _ESCAPE.finditer(text):
        yield from _here(text, escape.end())
    for match in _MIDDLE.finditer(text):
        group = match.lastgroup or ""
        before, most = _BEFORE[group]
        end = match.start(group)
        if start := before.search(text, max(0, end - most - 1), end):
            kind = f"{group.replace('_', ' ')} {'key' if 'relic' in group else 'token'}"
            yield start.start(), match.end(), kind
            yield from _here(text, match.end())
    for match in _JWT.finditer(text):
        place = match.start()
        least = text.rfind(".", max(0, place - _JWT_HEADER), place) + 1
        word = _LAST_WORD.search(text, least or max(0, place - _JWT_HEADER), place)
        header = text.find("eyJ", word.start() if word else least, place - 8)
        if header >= 0:
            yield header, match.end(1), "jwt"
    for match in _BASE64_PEM.finditer(text):
        yield *match.span(), "private key"


def _here(text: str, place: int) -> Iterator[Found]:
    """The tokens that follow each other from a place on."""
    while token := next(filter(None, (one.match(text, place) for one in _TOKEN_HERE)), None):
        yield from _named(token)
        place = token.end()


def _named(token: re.Match[str]) -> Iterator[Found]:
    kind = _NAMES[int((token.lastgroup or "g0_").lstrip("g").partition("_")[0])]
    # sk-learn-contrib-something-long is a name; a key is no string of words and small numbers. One
    # that ends in EXAMPLE is in the documentation of Amazon, one in xxxx in that of anybody.
    whole = token[0]
    if not (consists_of_words(whole) or whole.endswith("EXAMPLE") or len(set(whole[-8:])) == 1):
        yield *token.span(), kind
