"""What small templates render to with transformers' Jinja.

    python jinja_goldens.py OUT

OUT (internal/jinja/testdata/snippets.json) gets, for each template, the text, or the class and message of the error. Made with
transformers 5.23.0 and jinja2 3.1.6 on Python 3.11. The clock stands at 2026-11-26 09:08:07.
"""

import json
import os
import sys
from datetime import datetime

os.environ["HF_HUB_OFFLINE"] = "1"

from transformers.utils import chat_template_utils  # noqa: E402


class Clock(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 26, 9, 8, 7, 654321)


chat_template_utils.datetime = Clock

VARS = {
    "s": "Hello, World", "u": "Grüße 漢字 🙂é", "n": 7, "f": 2.5, "t": True, "none_": None, "empty": "", "l": [3, 1, 2], "nested": [[1, 2], [3, [4]]],
    "d": {"b": 1, "a": [1, 2.0, None, True], "items": "mine", "ü": {"x": "y"}}, "words": ["banana", "Apple", "cherry", "apple"],
    "users": [{"name": "ann", "age": 30, "tags": ["x"]}, {"name": "Bob", "age": 25}, {"name": "cy", "age": 30, "tags": []}],
    "text": " line one \n\n  line two\t\nline three  ", "html": "<a href=\"x\">T&C's</a>", "big": 9007199254740993, "messages": [{"role": "user", "content": "hi"}],
}

# Each line is an expression.
EXPRESSIONS = r"""
1 + 2 * 3 - 4
7 / 2
7 // 2
-7 // 2
7 % 3
-7 % 3
7.5 // 2
-7.5 % 2
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
1 / 0
1 // 0
1 % 0
1.0 / 0
0.1 + 0.2
1e20
1e16 * 10
1.5e-7
123456789.123456789
100000000000000000000.0
3.0
-0.0
1_000
0x1F + 0b101 + 0o17
007
1.
.5
true and false
true or undefined_thing
not none
not s
1 == 1.0
true == 1
"a" < "b"
"a" < 1
1 < 2 < 3
3 > 2 > 2
[1, 2] < [1, 3]
(1, 2) == [1, 2]
(1, 2) == (1, 2)
none == undefined_thing
undefined_thing == other_undefined
undefined_thing
undefined_thing.x
undefined_thing[0]
undefined_thing + 1
1 + undefined_thing
"a" + undefined_thing
undefined_thing ~ "a"
undefined_thing | length
undefined_thing | list
undefined_thing()
undefined_thing < 1
-undefined_thing
"x" in undefined_thing
d.missing
d.missing.deep
d["missing"]["deep"]
d["items"]
d.items()
d.items() | list
d.keys() | list
d.values() | list
d.get("b")
d.get("zz")
d.get("zz", 5)
d | length
d
d.b + 1
d["a"][1]
d.ü.x
d.a.0
d.update({"x": 1})
d.pop("b")
d.__class__
d["__class__"]
s.__class__.__mro__
"".__class__
l.append(4)
l.sort()
l
l[0]
l[-1]
l[5]
l["x"]
l[1:]
l[:-1]
l[::-1]
l[::2]
l[10:]
l[-2:5]
l[::0]
s[1:4]
s[::-1]
s[0]
s[100]
s[-3:]
u[0:5]
u[6]
u[::-1]
u | length
none_[1:]
d[1:]
n[0]
n.x
nested
nested[1][1][0]
(1,)
()
(1, "a", none)
[1, [2, (3,)], {"k": "v"}]
{"a": 1, "b": {"c": [true, none]}, 1: 2, none: 3, 1.5: 4, true: 5}
{1: "a", 1.0: "b", true: "c"}
{(1, 2): "t"}[(1, 2)]
{[1]: 2}
"it's"
'say "hi"'
["it's", 'say "hi"', "both ' and \""]
["tab\t", "nl\n", "\x00\x7f\x80", "é漢", "\u200b", "🙂", "\\"]
"\x41\u00e9\U0001F642\101\q\/"
"a" "b" 'c'
"\é"
"%s" % "x"
"%s and %d" % ("x", 5)
"%5.1f|%-6s|%06d|%+d|%x|%X|%o|%e|%g" % (3.14159, "ab", 42, 5, 255, 255, 8, 12345.678, 0.0001)
"%(a)s-%(b)03d" % {"a": "x", "b": 7}
"%%|%c|%r" % ("z", "q")
"%s" % undefined_thing
"%s %s" % "x"
"%s" % ("x", "y")
"%d" % "x"
"%d" % 3.7
"%x" % 3.5
"%.3s|%5s|%-5s|" % ("abcdef", "x", "y")
"%s" % [1, "a"]
"%s" % d
"%*d" % (5, 3)
"%z" % 1
"%" % 1
"{} {} {0}".format("a", "b")
"{} {}".format("a", "b")
"{1} {0} {x}".format("a", "b", x="c")
"{0[1]} {a.b} {c[k]}".format([1, 2], a={"b": 3}, c={"k": 4})
"{:>8}|{:<8}|{:^9}|{:*^8}".format("a", "b", "c", "d")
"{:05d}|{:+}|{:,}|{:_}|{:x}|{:#x}|{:08.3f}|{:e}|{:%}|{:g}".format(42, 3, 1234567, 1234567, 255, 255, 3.14159, 12345.678, 0.256, 1e10)
"{:.2f}|{:10.3}|{:.3s}".format(2.345, 3.14159, "abcdef")
"{!r} {!s}".format("a", "b")
"{{}} {}".format(1)
"{".format(1)
"}".format(1)
"{}".format()
"{x}".format()
"{:d}".format("x")
"{:z}".format(1)
"{:>{w}}".format("a", w=5)
"{.__class__}".format("a")
"{0.__class__.__mro__}".format("a")
"{a.__init__}".format(a=1)
"{}".format(1.0)
"{}".format([1, "a"])
"{:>5}".format(none)
"{:5}|{:<5}|{:5}".format(1, 2, "s")
"{k}".format_map({"k": 1})
s.upper()
s.lower()
s.title()
s.capitalize()
s.swapcase()
"they're bill's".title()
"they're bill's" | title
"ß straße ŉ ǆ".upper()
"ß straße ŉ ǆ".title()
"ΑΣ ΟΔΟΣ".lower()
"İ".lower()
"ß".capitalize()
s.replace("l", "L")
s.replace("l", "L", 1)
s.replace("", "-")
s.replace(1, 2)
s.split(",")
s.split()
" a  b c ".split()
" a  b c ".split(" ")
" a  b c ".split(none, 1)
" a  b c ".rsplit(none, 1)
"a,b,c".split(",", 1)
"a,b,c".rsplit(",", 1)
"a,b,c".split(",", maxsplit=1)
"a,b,c".rsplit(",")
"abc".split("")
"".split()
"".split(",")
text.splitlines()
text.splitlines(true)
"a\r\nb\rc\x0bd\x1ce\u2028f".splitlines()
text.strip()
text.lstrip()
text.rstrip()
"xxabcxx".strip("x")
"xyabcyx".lstrip("xy")
"\u00a0\x1c a \u3000".strip()
"\u200b a".strip()
s.startswith("Hell")
s.startswith(("x", "H"))
s.startswith("l", 2)
s.endswith("d")
s.endswith(["d"])
s.startswith(1)
s.find("o")
s.find("o", 5)
s.rfind("o")
s.find("zz")
s.index("zz")
u.find("字")
s.count("l")
s.count("")
"-".join(["a", "b"])
"-".join(words)
"-".join([1])
"-".join("abc")
s.partition(", ")
s.partition("zz")
s.rpartition("o")
s.removeprefix("Hello")
s.removesuffix("World")
"ab".center(7, "*")
"ab".center(6)
"abc".center(6, "-")
"a".center(4, "-")
"ab".ljust(5, ".") ~ "|"
"ab".rjust(5)
"-42".zfill(6)
"42".zfill(2)
"a\tb".expandtabs(4)
"abc".isalpha()
"abc1".isalnum()
"123".isdigit()
"²".isdigit()
"½".isnumeric()
"Ⅷ".isdecimal()
" \t".isspace()
"".isspace()
"ABC".isupper()
"aBc".islower()
"Title Case".istitle()
"a1_".isidentifier()
"é".isascii()
"a\n".isprintable()
"ABC".casefold()
s.nothing
s.nothing()
s()
n()
"abc" * 3
3 * "ab"
"a" * -1
[1, 2] * 2
(1,) * 3
"a" * 1.5
[1] + [2]
[1] + (2,)
(1,) + (2,)
"a" + 1
1 + "a"
none + 1
d + d
"a" - "b"
-"a"
l + none
1 ~ 2 ~ none ~ true ~ 1.0
"a" ~ [1, "x"]
"a" in "abc"
1 in "abc"
1 in [1, 2]
"b" in d
"zz" not in d
[1] in d
1 in 5
1 in none
none in [none]
1 in (1, 2)
3 in range(5)
"a" in {"a": 1}.keys()
"yes" if t else "no"
"yes" if undefined_thing
("yes" if false) is undefined
"yes" if false else "maybe" if false else "no"
n is defined
undefined_thing is defined
undefined_thing is not defined
d.missing is defined
n is number
t is number
f is float
n is integer
t is integer
t is boolean
none_ is none
s is string
l is string
d is mapping
l is mapping
l is sequence
s is sequence
d is sequence
n is sequence
d.items() is sequence
range(3) is sequence
(l | map("string")) is sequence
l is iterable
s is iterable
n is iterable
undefined_thing is iterable
undefined_thing is sequence
none_ is iterable
range is callable
s is callable
n is odd
n is even
n is divisibleby 7
n is divisibleby(2)
n is eq 7
n is equalto 7
n is ne 7
n is gt 3
n is lt 3
n is ge 7
n is greaterthan 3
n is in [7]
n is sameas 7
l is sameas l
t is true
t is false
n is true
"ABC" is upper
"abc" is lower
"upper" is filter
"nope" is filter
"odd" is test
n is nope
s is escaped
(s | safe) is escaped
not n is odd
n is not odd
n is not none and n is number
s | upper
s | lower
u | upper
s | title
"hello wORLD" | capitalize
s | length
l | length
n | length
none_ | length
d | count
s | first
s | last
l | first
l | last
[] | first
[] | last
d | first
d | last
l | sort
words | sort
words | sort(case_sensitive=true)
words | sort(reverse=true)
users | sort(attribute="age") | map(attribute="name") | list
users | sort(attribute="age,name", reverse=true) | map(attribute="name") | join(",")
[1, "a"] | sort
d | dictsort
d | dictsort(by="value")
{"B": 2, "a": 1, "C": 0} | dictsort
{"B": 2, "a": 1, "C": 0} | dictsort(true)
{"B": 2, "a": 1, "C": 0} | dictsort(false, "value")
{"B": 2, "a": 1, "C": 0} | dictsort(reverse=true)
{"B": 2} | dictsort(by="x")
l | join
l | join(", ")
words | join("-")
users | join(", ", attribute="name")
users | map(attribute="name") | join(", ")
users | map(attribute="tags", default="none") | list
users | map(attribute="tags.0") | list
words | map("upper") | list
words | map("replace", "a", "A") | join
words | map("nope") | list
words | map | list
users | selectattr("tags") | map(attribute="name") | list
users | selectattr("age", "equalto", 30) | map(attribute="name") | list
users | selectattr("age", "==", 30) | list | length
users | selectattr("age", "gt", 26) | list | length
users | selectattr("tags", "defined") | list | length
users | rejectattr("tags") | map(attribute="name") | list
users | selectattr("nope.deep") | list
l | select("odd") | list
l | select | list
[0, 1, "", "a", none] | select | list
[0, 1, "", "a", none] | reject | list
l | reject("odd") | list
l | select("gt", 1) | list
l | select("nope") | list
(l | select("odd")) and true
"yes" if users | selectattr("age", "equalto", 99) else "no"
users | selectattr("age", "equalto", 99) | first
users | selectattr("age", "equalto", 99) | list | first is defined
users | selectattr("age") | length
none_ | selectattr("x") | list
5 | map("string") | list
l | max
l | min
words | max
[] | max
users | max(attribute="age")
l | sum
users | sum(attribute="age")
[1.5, 2] | sum
[] | sum
words | sum
[[1], [2]] | sum(start=[])
l | reverse | list
s | reverse
l | list
s | list
d | list
n | list
words | unique | list
words | unique(case_sensitive=true) | list
users | groupby("age") | length
users | groupby("age")
(users | groupby("age"))[0].grouper
(users | groupby("age"))[0].list | length
l | batch(2) | list
l | batch(2, "x") | list
l | slice(2) | list
l | slice(2, "x") | list
"3.7" | int
"abc" | int
"abc" | int(5)
"0x1f" | int(base=16)
"ff" | int(0, 16)
" 42 " | int
"1_000" | int
3.9 | int
-3.9 | int
none_ | int
t | int
[] | int
undefined_thing | int
"1e3" | int
"inf" | int
"3.5" | float
"x" | float
"x" | float(1.5)
none_ | float
"inf" | float
"nan" | float
7 | string
none_ | string
t | string
l | string
3.14159 | round
3.14159 | round(2)
2.5 | round
3.5 | round
-2.5 | round
1234.5 | round(-2)
3.14159 | round(2, "ceil")
3.14159 | round(2, "floor")
3.1 | round(1, "nope")
7 | round
-5 | abs
-5.5 | abs
"a" | abs
s | default("x")
undefined_thing | default("x")
undefined_thing | default
empty | default("x")
empty | default("x", true)
none_ | default("x")
none_ | d("x", boolean=true)
d.missing | default({"a": 1})
s | replace("l", "L")
s | replace("l", "L", 2)
n | replace(7, 8)
text | trim
"xxaxx" | trim("x")
n | trim
text | indent
text | indent(2)
text | indent(2, true)
text | indent(2, true, true)
text | indent(first=true)
text | indent("> ")
"" | indent(2, true)
n | indent
"ab" | center(8) ~ "|"
"foo bar baz qux" | truncate(9)
"foo bar baz qux" | truncate(9, true)
"foo bar baz qux" | truncate(11, false, "...", 0)
"foo bar" | truncate(2)
"a bc d_e 漢字" | wordcount
html | escape
html | e
html | safe
html | forceescape
(html | safe) + "<b>"
"<b>" + (html | safe)
(html | safe) ~ "<b>"
("<i>" | safe) * 2
("%s" | safe) % "<b>"
("<I>" | safe).lower()
("<I>" | safe) | lower | escape
["<a>" | safe, "<b>"] | join
["<a>" | safe]
html | striptags
"a b/c?d=é&" | urlencode
{"a b": "c/d", "é": 1} | urlencode
1000 | filesizeformat
1 | filesizeformat
123456789 | filesizeformat
123456789 | filesizeformat(true)
"%s-%s" | format("a", 1)
"%(x)s" | format(x=2)
"%s" | format("a", x=1)
d | items | list
undefined_thing | items | list
n | items | list
d | attr("b")
d | tojson
l | tojson
s | tojson
u | tojson
html | tojson
d | tojson(indent=2)
nested | tojson(indent=2)
{} | tojson(indent=2)
[[], {}] | tojson(indent=1)
d | tojson(indent="--")
nested | tojson(indent=0)
d | tojson(separators=(",", ":"))
d | tojson(separators=(",", ": "), indent=1)
{"b": 1, "a": 2} | tojson(sort_keys=true)
{1: 2, "a": 3} | tojson(sort_keys=true)
u | tojson(ensure_ascii=true)
"\x00\x1f\x7f\u2028\"\\/\b\f" | tojson
"\x7f🙂" | tojson(true)
{1: 2, none: 3, true: 4, 1.5: 5} | tojson
{(1, 2): 3} | tojson
(1, 2) | tojson
undefined_thing | tojson
range(3) | tojson
d.items() | tojson
(html | safe) | tojson
1e20 | tojson
1e-7 | tojson
("inf" | float) | tojson
big | tojson
tojson(1)
range(5) | list
range(2, 10, 3) | list
range(5, 0, -2) | list
range(0)
range(3)
range(1, 10, 2)
range(5)[1]
range(5)[-1]
range(10)[2:4]
range(100001)
range()
range("a")
range(1, 2, 0)
range(3) | length
dict(a=1, b=2)
dict([["a", 1], ("b", 2)])
dict({"a": 1}, b=2)
dict([1])
namespace(a=1).a
namespace(a=1).b
namespace(_a=1)
namespace({"a": 1}, b=2)
namespace(a=1)["a"]
namespace() is mapping
cycler("a", "b").next()
raise_exception("No: " ~ n)
raise_exception()
strftime_now("%Y-%m-%d %H:%M:%S")
strftime_now("%d %b %Y, %A %B %a %j %p %I %y %e %-d %-m %% %f %w %U %W %u %V %G %F %T %D %R %c %x %X %Z|%z|")
loop
caller()
l.index(2)
l.index(9)
l.count(1)
l.copy()
(1, 2, 1).count(1)
d.copy()
f.is_integer()
7.0.is_integer()
n | upper
none_ | upper
l | upper
s | nope
d.a | map("string") | join("/")
d.a | map("string") | map("upper") | list
s.split(",")[0].upper() | lower ~ "!"
s | upper | lower | title | length
(s | upper).lower()
-n | abs
-n | string | length
(1 if t else 2) + 1
[x for x in l]
lambda
1 2
(1
[1, 2
{"a": 1
"abc
a b c
1 +
| upper
s |
s is
s.
s[
s[1
d{}
s(
f(a=1, 2)
range(*[1, 5]) | list
dict(**{"a": 1})
range(*l, **{})
"{}{}".format(*[1, 2])
s.split(sep=",")
s.upper(1)
s.replace("a")
s | replace("a")
s | default(1, 2, 3)
9223372036854775807
9223372036854775807 - 1
"a" < none
none < none
[1, none] | sort
[none] < [none]
{} < {}
true + true
true * 3
"ab" * true
l[true]
1.0 == 1
"1" == 1
none is sameas none
[1, 2, 3] | map("divisibleby", 2) | list
s is string and n is number or false
not true or true
1 in [1] and 2 not in [1]
1 not in [1] == false
1 < 2 == true
"a" if 1 > 2 else "b" ~ "c"
l | sort | first + 10
5 is number + 1
2 * 3 ~ 4
2 + 3 ~ 4
-3 | abs
- 3 ** 2
s | replace("Hello", "Bye") | upper == "BYE, WORLD"
(s, n)[0]
s, n
[1, 2, 3,]
{"a": 1,}
(1, 2,)
users[0].name ~ users[1]["name"]
users[0]["tags"][0]
users.0.name
messages[0].content
messages[-1]["role"]
messages[0].get("x", "y").upper()
text.split("\n")[0].strip()
text.split("\n") | map("trim") | select | join(" ")
text.splitlines() | map("trim") | reject("equalto", "") | list
x.y | default(1)
" a b ".split(none, 0)
" a b ".rsplit(none, 0)
"a b c".rsplit(none, 5)
("{}" | safe).format("<b>")
("%d %s" | safe) % (1, "<b>" | safe)
("x" | safe).join(["<a>", "b"])
"{0} {}".format("a", "b")
"{} {a}".format(1, a=2)
range(1, 10, 2)[1:3]
[range(3), range(0)]
namespace(a=[1])
s.upper.x.y
"%s%%" % 5
"%5%|" % ()
"%-5d|%05d|% d|%+.2f|%.0f|%#x|%#o" % (3, -3, 3, 1.005, 2.5, 255, 8)
"%g %g %g %g %G" % (100000, 1000000, 1e-5, 123456789, 1e-10)
"{:g} {:.3g} {:n} {:.1%} {:E}".format(1e16, 1234.5, 12, 0.5, 1.5)
"{:=+8d}|{:<08.2f}|{:^+8d}|{:b}|{:o}|{:X}|{:c}".format(5, 1.5, 7, 5, 8, 255, 65)
"{:,.2f} {:_x} {:,}".format(1234567.891, 65535, 1234.5)
"{:08.2f}|{:+.1e}|{: d}|{:#b}".format(-3.14159, 12345.0, 4, 5)
1e308 * 10
(1e308 * 10) | tojson
"12" | int + 1
"  1_0 " | int
"0b11" | int(base=2)
"0o17" | int(0, 8)
"z" | int(base=36)
"+5" | int
"--5" | int
"1__0" | int
2.675 | round(2)
0.5 | round
1.5 | round | int
25 | round(-1)
35 | round(-1)
[3, 1] | sort(reverse=true)
["b", "A", "a", "B"] | sort
{"b": 1, "A": 2} | dictsort(case_sensitive=true)
users | map(attribute="age") | unique | list
users | map(attribute="age") | sum
users | map("attr", "name") | list
users | map(attribute="name") | map("upper") | join(" ")
users | selectattr("name", "in", ["ann", "cy"]) | list | length
users | selectattr("name", "string") | list | length
users | rejectattr("age", "gt", 26) | map(attribute="name") | first
users | groupby("tags", default=[]) | length
l | slice(0) | list
d.get([1])
d[[1]]
"a,b;c".replace(",", ";").split(";") | last
"abc" | list | join("-")
"x" ~ ("a" if false)
{"a": {"b": {"c": 1}}}.a.b.c
{"get": 1}["get"]
{"keys": 1}.keys() | list
[1, 2, 3][true]
"abc"[-1:]
"abc"[:2][::-1]
[[1, 2], [3]] | map("length") | sum
[[1, 2], [3]] | map("first") | list
[1, 2] == [1, 2.0]
{"a": 1, "b": 2} == {"b": 2, "a": 1}
"é" < "z"
"Z" < "a"
1 == "1"
"1" in "123" and "2" not in "13"
not (1 in [1])
(d.a | length) > 3 and d.a[-1]
d.a[:2] + [5]
s[:5] ~ s[5:]
text | replace("\n", "\\n")
"a\nb" | tojson
"\u00e9" | tojson(ensure_ascii=true)
[1.0, 1e100, -0.0, 1e-10] | tojson
d | string | length
d | tojson | length
[none, true, 1.5, "x"] | tojson(indent=4)
{"a": []} | tojson(indent=2)
[d, l] | tojson(separators=(",", ":"), sort_keys=true)
""" .strip("\n").split("\n")

TEMPLATES = [
    "", "\n", "a\n", "a\n\n", "\na", "  \n", "a\r\nb\rc\n", "{{ 1 }}\n", "{{ 1 }}\n\n", "{% if true %}\nx\n{% endif %}\ny\n", "  {% if true %}\n  x\n  {% endif %}\n  y",
    "a {% if true %} b {% endif %} c", "a {%- if true -%} b {%- endif -%} c", "a\n\n  {%- if true %} b{% endif +%}\n c", "  {%+ if true %}x{% endif %}", "x {{- 1 -}} y", "x {{+ 1 }} y", "x {{-1}} y",
    "{# c #}\nx", "  {# c #}\n x", "a {#- c -#} b", "a {# {{ 1 }} {% x %} #}b", "{#+ c +#}\nx", "{##}x", "{# unclosed", "{% raw %}{{ x }}{% endraw %}", "{% raw %}\n{{ x }}\n{% endraw %}\ny", " {%- raw -%} {{ x }} {%- endraw -%} y",
    "{% raw %} unclosed", "{% raw %}{% endraw", "a\n  {% raw %}  x\n  {% endraw %}\n b", "{{ '}}' }}", "{{ '%}' }}{% if '%}' %}x{% endif %}", "{{ {'a': {'b': 1}} }}", "{{ {'a': {'b': 1}}['a']['b']}}", "{", "{ {", "}}", "%}", "{{", "{%", "{{ 1", "{% if 1", "{{ 1 %}", "{% if 1 }}", "{{ ! }}", "{{ 1 } }}", "{{ ) }}", "{{ (] }}", "{{ @ }}", "{{ $x }}", "{{ a? }}",
    "{% for x in l %}{{ x }},{% endfor %}", "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}|{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}-{{ x }}-{{ loop.nextitem }};{% endfor %}", "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in [1,1,2] %}{{ loop.changed(x) }}{% endfor %}", "{% for x in [] %}a{% else %}none{% endfor %}", "{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.last }}{% else %}none{% endfor %}", "{% for x in l if x > 5 %}a{% else %}none{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.length }}{{ x }}{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for a, b in [[1, 2], (3, 4)] %}{{ a }}{{ b }}{% endfor %}", "{% for a, b in [[1]] %}{% endfor %}", "{% for a, b in [[1, 2, 3]] %}{% endfor %}", "{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for c in 'añ' %}[{{ c }}]{% endfor %}", "{% for x in undefined_thing %}a{% endfor %}", "{% for x in none %}a{% endfor %}", "{% for x in 5 %}a{% endfor %}", "{% for x in 1, 2 %}{{ x }}{% endfor %}", "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in l %}{% continue %}{% else %}E{% endfor %}", "{% for x in l %}{% break %}{% else %}E{% endfor %}", "{% break %}", "{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in nested recursive %}[{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}@{{ loop.depth }}{{ loop.depth0 }}{% endif %}]{% endfor %}", "{% for x in l %}{{ loop(x) }}{% endfor %}", "{% for x in l %}{{ loop }}{% endfor %}", "{% for loop in l %}{% endfor %}", "{% for x in range(3) %}{{ x }}{% endfor %}", "{% for x in l | map('string') %}{{ x }}{{ loop.last }}{% endfor %}", "{% set g = l | map('string') %}{% for x in g %}{{ x }}{% endfor %}|{% for x in g %}{{ x }}{% endfor %}", "{% for x in l | reverse %}{{ x }}{% endfor %}",
    "{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "{% set ns = namespace(x=1) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b }}", "{% set ns = {} %}{% set ns.a = 1 %}", "{% set ns.a = 1 %}", "{% set ns = namespace() %}{% set ns._a = 1 %}", "{% set ns = namespace(a=1) %}{{ ns }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}", "{% set ns = namespace() %}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}", "{% set x = 1, %}{{ x }}", "{% set x %}a{{ n }}b{% endset %}{{ x }}|{{ x | length }}", "{% set x | upper %}a{{ n }}b{% endset %}{{ x }}", "{% set x | upper | replace('A', 'z') %}ab{% endset %}{{ x }}", "{% set x %}{% set y = 1 %}{% endset %}{{ y }}", "{% set 1 = 2 %}", "{% set true = 2 %}", "{% set x.y.z = 2 %}", "{% set x[0] = 1 %}",
    "{% if x is defined %}a{% else %}b{% endif %}{% set x = 1 %}{% if x is defined %}a{% endif %}", "{% if n == 1 %}a{% elif n == 7 %}b{% elif n == 7 %}c{% else %}d{% endif %}", "{% if false %}a{% elif false %}b{% else %}c{% endif %}", "{% if none %}{% endif %}", "{% if true %}{% set y = 5 %}{% endif %}{{ y }}", "{% if false %}{% set n = 5 %}{% endif %}{{ n }}", "{% if %}a{% endif %}", "{% if true %}", "{% endif %}", "{% else %}", "{% if true %}{% endfor %}", "{% for x in l %}{% endif %}", "{% nope %}", "{% if true %}{% nope %}{% endif %}", "{% 1 %}", "{% for %}", "{% for x l %}", "{% if true: %}x{% endif %}",
    "{% macro m(a, b=2, c=b) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, 3) }}|{{ m(b=5, a=4) }}|{{ m() }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(x=2) }}", "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}", "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{{ n }}{% endcall %}", "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}-{{ b }}{% endcall %}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}", "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}", "{% call n %}x{% endcall %}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m }}{{ m.name }}{{ m.arguments }}{{ m.caller }}{{ m.catch_kwargs }}", "{% macro m() %}{{ n }}{% endmacro %}{% set n = 8 %}{{ m() }}", "{% macro f(x) %}{% if x > 0 %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% macro m(a) %}{{ a | upper }}{% endmacro %}{{ m('x') | lower ~ '!' }}", "{% macro m() %}\n  x\n{% endmacro %}[{{ m() }}]", "{% macro m(a, b) %}{{ a }}{{ b is defined }}{% endmacro %}{{ m(1) }}", "{% macro m(a=1, b) %}{% endmacro %}", "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro m(n=n) %}{{ n }}{% endmacro %}{{ m() }}", "{% set f = range %}{{ f(2) | list }}", "{{ words | map('length') | list }}", "{% macro m(x) %}{% for i in x %}{{ loop.index }}{{ i }}{% endfor %}{% endmacro %}{{ m(l) }}{{ m(words) }}",
    "{% filter upper %}a{{ s }}{% endfilter %}", "{% filter upper | replace('A', 'b') %}a{% endfilter %}", "{% filter indent(2) %}a\nb{% endfilter %}", "{% filter nope %}{% endfilter %}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set z = 1 %}{{ z }}{% endwith %}{{ z }}", "{% with a = n %}{% set n = 3 %}{{ a }}{{ n }}{% endwith %}{{ n }}", "{% block x %}b{{ n }}{% endblock %}", "{% block x %}b{% endblock x %}", "{% print 1, 2 %}", "{% generation %}a{% endgeneration %}", "{% generation %}{% set q = 1 %}{% endgeneration %}{{ q }}", "{% for x in l %}{% generation %}{{ x }}{% endgeneration %}{% endfor %}", "{%- generation -%} a {%- endgeneration -%} b", "{% for x in l %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    "{% if false %}{{ s | nope }}{% endif %}ok", "{% if true %}{{ s | nope }}{% endif %}ok", "{{ s | nope if false else 'ok' }}", "{{ s | nope if true else 'ok' }}", "{% if false %}{{ s is nope }}{% endif %}ok", "{% if false %}{% for x in l %}{{ x | nope }}{% endfor %}{% endif %}", "{{ 'a' if s | nope else 'b' }}", "{% if s | nope %}{% endif %}", "{% macro m() %}{{ s | nope }}{% endmacro %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set _ = c.reset() %}{{ c.current }}", "{% set j = joiner('|') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}", "{{ namespace(a=namespace(b=1)).a.b }}", "{% set x = d %}{% set x = x | items | list %}{{ x[0][0] }}", "{% for m in messages %}{{ m['role'] + ':' + m['content'] }}{% endfor %}", "{% set loop_messages = messages[1:] %}{{ loop_messages | length }}", "{% for u in users %}{{ u.name if u.tags is defined and u.tags else '-' }}{% if not loop.last %},{% endif %}{% endfor %}", "{% for u in users | sort(attribute='name') %}{{ u.name }}{% endfor %}", "{% for age, us in users | groupby('age') %}{{ age }}:{{ us | map(attribute='name') | join('+') }};{% endfor %}",
    "{{ undefined_thing.foo.bar }}", "{{ s.foo.bar }}", "{{ none_.foo }}", "{{ none_.foo.bar }}", "{{ l.foo.bar }}", "{{ n.foo.bar }}", "{{ d.foo.bar }}", "{{ l[9].x }}", "{{ (l | map('string')).foo.bar }}", "{{ namespace().foo.bar }}", "{{ d.items.foo.bar }}", "{{ d[none].x }}", "{{ d[1.5].x }}", "{{ l['k'].x }}", "{{ range(3).foo.bar }}",
    "{% autoescape false %}x{% endautoescape %}",
]


def run(source):
    try:
        return {"text": chat_template_utils._cached_compile_jinja_template(source).render(**json.loads(json.dumps(VARS)))}
    except Exception as e:
        return {"error": type(e).__name__, "message": str(e)}


def main(out):
    sources = ["{{ " + e + " }}" for e in EXPRESSIONS] + TEMPLATES
    with open(out, "w", encoding="utf-8") as f:
        rows = [json.dumps({"source": s, **run(s)}, ensure_ascii=False) for s in sources]
        f.write('{"vars": ' + json.dumps(VARS, ensure_ascii=False) + ',\n"snippets": [\n' + ",\n".join(rows) + "\n]}\n")
    print(len(sources))


main(*sys.argv[1:])
