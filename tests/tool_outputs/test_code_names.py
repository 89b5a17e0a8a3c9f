from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.tool_outputs.code_names import definitions, names
from clara_mlx.tool_outputs.sources import is_listing

PYTHON = """\
class Till(Drawer, _Locked):
    def _count_coins(self, coins):
        return total_of(coins)

    async def open_all(
        self,
        key):
        if is_locked(key):
            raise ValueError("class of keys")

_MOST_COINS = 12
by_value = lambda coin: coin.value
"""
TYPESCRIPT = """\
export class ShopSession extends Base {
  private _stopListening?: () => void;
  constructor(options: Options) {
    super();
  }
  async setPriceMode(mode: PriceMode): Promise<void> {
    if (this.closed) {
    for (const one of all) {
    await doThing();
    this.till.run(() => {
  }
  get isOpen(): boolean {
  static create(
    size: number,
  ) {
export interface ShopOptions {
export type ShopEvent = Opened | Closed;
export const parsePrice = (text: string) => {
const readAll = async function () {
  it("adds up", () => {
"""
JAVA = """\
package org.shop.till;
public final class CoinReader<T extends Coin> implements Reader {
    @Override
    public static List<String> readAll(Path from) throws IOException {
        return new Till(from);
        String text = joined(from);
    }
    protected abstract int size();
    void plain(int a) {
    default boolean isOpen() {
    private Map<String, List<Coin>> byValue(
            int most) {
"""
C = """\
#define MAX_COINS 12
static int parse_coin(struct text *from, size_t n)
{
    return to_coin(from);
}
char *next_coin(lexer_t *from) {
int total(int a);
void Till::Open(int key) const {
struct drawer {
    add_up(a);
    if (x) {
"""
OTHERS = {
    "go": (
        "func (s *Shop) Serve(w Writer) error {\nfunc NewShop() *Shop {\ntype Config struct {\n",
        "Serve NewShop Config",
    ),
    "rust": (
        "pub(crate) fn get_till(a: u8) -> u16 {\n"
        "pub struct Stock {\n"
        "macro_rules! say {\n"
        "    let x = foo(bar);\n",
        "get_till Stock say",
    ),
    "ruby": (
        "  def self.find_by(x)\n  def valid?\nclass Till < Drawer\nmodule Shop::Tills\n",
        "find_by valid? Till Shop::Tills",
    ),
    "php": (
        "    public function getName(): string\n"
        "    {\n"
        "        return $this->name;\n"
        "abstract class Till extends Drawer\n",
        "getName Till",
    ),
    "c#": (
        "        public async Task<int> RunAsync(Token stop)\n"
        "        {\n"
        "    public record Coin(string Name);\n",
        "RunAsync Coin",
    ),
    "kotlin": (
        "    override fun onOpen(key: Key?) {\n"
        "data class Coin(val value: Int)\n"
        "fun String.shout() = x()\n"
        "object Till {\n",
        "onOpen Coin String.shout Till",
    ),
    "swift": (
        "    func viewDidLoad() {\npublic protocol Store: AnyObject {\nextension Till: Drawer {\n",
        "viewDidLoad Store Till",
    ),
    "shell": (
        "build_image() {\nfunction run_tests {\n  docker build .\n",
        "build_image run_tests",
    ),
    "sql": (
        "CREATE TABLE IF NOT EXISTS coins (\ncreate or replace view tills as\n",
        "coins tills",
    ),
    "elixir": (
        "defmodule Shop.Till do\n  defp count(coins) do\n",
        "Shop.Till count",
    ),
    "perl, lua": (
        "sub open_till {\nlocal function close_till(key)\n",
        "open_till close_till",
    ),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PYTHON, "Till _count_coins open_all _MOST_COINS by_value"),
        (
            TYPESCRIPT,
            "ShopSession setPriceMode isOpen create ShopOptions ShopEvent parsePrice readAll",
        ),
        (JAVA, "org.shop.till CoinReader readAll size plain isOpen byValue"),
        (C, "MAX_COINS parse_coin next_coin total Till::Open drawer"),
        *OTHERS.values(),
    ],
    ids=["python", "typescript", "java", "c", *OTHERS],
)
def test_what_code_defines(text: str, expected: str) -> None:
    found = definitions(text)
    assert [one.name for one in found] == expected.split()
    assert all(text.startswith(one.name, one.start) for one in found)


@pytest.mark.parametrize(
    "text",
    [
        "The class of things is in the type that we use.\nfunction of time\n",
        "type is wrong (see below)\nwe call foo(bar) and\ndef\n",
        "while (x) {\n  if (a) {\n  foo(a, b);\n  return bar(x);\n  expect(y)\n",
        "error: no such function `till`\nnote: try `open(key)` (if you have one)\n",
    ],
)
def test_what_defines_nothing(text: str) -> None:
    assert definitions(text) == []


def test_names_have_parts_and_the_most_frequent_comes_first() -> None:
    text = (
        "from shop.tills import x\nprice = parse_price(setMode, parse_price)\nHTTPServer of utf8x\n"
    )
    assert names(text) == ["parse_price", "shop.tills", "setMode", "HTTPServer", "utf8x"]
    assert names("an ordinary sentence with 3rd, UPPER, Title and __init__ words, 0x1fA") == []


@settings(deadline=None, max_examples=100)
@given(
    st.one_of(
        st.text(),
        st.lists(
            st.sampled_from([PYTHON, TYPESCRIPT, JAVA, C, "\n", " ", "(", "{", "é", "def "])
        ).map("".join),
    )
)
def test_definitions_stand_where_they_say(text: str) -> None:
    for name, start in definitions(text):
        assert text.startswith(name, start)


@pytest.mark.parametrize("text", [PYTHON, TYPESCRIPT, JAVA, C])
def test_a_listing_is_told_by_its_looks_and_by_the_command(text: str) -> None:
    assert is_listing(text)
    assert is_listing(text[len(text) // 2 :])
    prose = "".join(f"Sentence number {i} of the manual.\n" for i in range(len(text) // 40))
    assert is_listing(text + prose, "cat src/till.py")
    assert is_listing(text + prose, "path=src/till.py, offset=55")


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("", None),
        ("FAILED tests/test_a.py::test_b - assert 1\n1 failed in 0.1s\n", "pytest"),
        ("error: cannot find symbol\n  symbol: class Till\nBUILD FAILED\n", None),
        ("".join(f"12:00:0{i} INFO till opened\n" for i in range(9)), "cat shop.log"),
        ("The quick brown fox.\n" * 9, "cat README.md"),
        (PYTHON.replace("\n", " ") * 3, "python make.py"),
    ],
)
def test_what_is_no_listing(text: str, command: str | None) -> None:
    assert not is_listing(text, command)
