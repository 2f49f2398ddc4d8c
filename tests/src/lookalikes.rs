//! Texts that are not the same, and that one system or another takes for the same.

/// Each of these groups is tried by itself, in every part of a key.
pub(crate) const CASE_SPACES_AND_ACCENTS: &[&[&str]] = &[
    &["alice", "Alice", "ALICE", "aLICE", "álice", "alicé", "ålice", "al1ce", "a1ice", "alic\u{451}", "alic\u{435}"],
    &["alice", "alice ", "alice  ", " alice", "alice\t", "alice\n", "alice\r\n", "alice\0", "alice\u{a0}", "alice\u{3000}"],
    &["a b", "a  b", "a\tb", "a\nb", "a\u{a0}b", "a\u{2003}b", "ab", "a_b", "a-b", "a.b", "a+b", "a%20b", "a%2520b"],
    &["straße", "strasse", "STRASSE", "STRAẞE", "strase", "straſſe"],
    &["o'brien", "obrien", "o\u{2019}brien", "o''brien", "o\\'brien", "\"o'brien\"", "'obrien'"],
];

pub(crate) const UNICODE: &[&[&str]] = &[
    &["caf\u{e9}", "cafe\u{301}", "cafe", "caf\u{c9}", "cafe\u{b4}", "caf\u{ea}", "caf\u{fffd}", "caf?"],
    &["\u{1f511}", "\u{1f511}\u{fe0f}", "\u{1f512}", "?", "??", "????", "\u{fffd}", "\u{fffd}\u{fffd}", "\u{10ffff}", "\u{1f468}", "\u{1f468}\u{200d}\u{1f469}", "\u{1f468}\u{1f469}"],
    &["\u{5d0}\u{5d1}", "\u{5d1}\u{5d0}", "\u{200f}\u{5d0}\u{5d1}", "\u{202e}ab", "ab", "ba"],
    &["ab", "a\u{200b}b", "a\u{200d}b", "a\u{ad}b", "a\u{feff}b", "\u{feff}ab", "a\u{34f}b", "a\u{1}b", "a\u{7f}b", "a\u{85}b", "a\u{fe0f}b", "a\0b", "a-b", "a'b", "a\u{2028}b", "ab\u{200b}", "a\u{180e}b"],
    &["\u{fb01}", "fi", "f\u{131}", "FI", "\u{212b}", "\u{c5}", "A\u{30a}", "\u{3a9}", "\u{2126}", "k", "K", "\u{212a}", "s", "\u{17f}", "\u{3c3}", "\u{3c2}", "\u{3a3}"],
    &["i", "I", "i\u{307}", "\u{130}", "\u{131}", "\u{12f}"],
    &["\u{b5}", "\u{3bc}", "m\u{b2}", "m2", "\u{bd}", "1/2", "1\u{2044}2", "\u{2460}", "1", "\u{2122}", "tm", "TM", "\u{2026}", "..."],
];

/// What one collation or another compares as equal.
pub(crate) const COLLATIONS: &[&[&str]] = &[
    // Kana: hiragana, katakana, their half width, small ones, voiced ones, the sign that repeats, long vowels.
    &["\u{306f}", "\u{30cf}", "\u{ff8a}", "\u{3070}", "\u{30d0}", "\u{ff8a}\u{ff9e}", "\u{306f}\u{3099}", "\u{3071}", "\u{30d1}"],
    &["\u{3042}", "\u{30a2}", "\u{ff71}", "\u{3041}", "\u{30a1}", "\u{ff67}", "\u{30fc}", "\u{ff70}", "\u{3042}\u{30fc}", "\u{3042}\u{3042}"],
    &["\u{3064}", "\u{3063}", "\u{30c4}", "\u{30c3}", "\u{3065}", "\u{30c5}"],
    // Width.
    &["a", "\u{ff41}", "\u{ff21}", "A", "\u{24d0}", "\u{1d41a}", "\u{aa}", "\u{430}", "\u{3b1}"],
    &["1", "\u{ff11}", "\u{661}", "\u{967}", "\u{b9}", "\u{2081}", "\u{4e00}", "\u{2160}"],
    &["-", "\u{2010}", "\u{2013}", "\u{2212}", "\u{ff0d}", "\u{ad}", "_", "\u{ff3f}", "~", "\u{301c}", "\u{ff5e}"],
    &[" ", "\u{3000}", "\u{a0}", "\u{2003}", "\u{200b}"],
    // Hangul and its letters; Han that is written in two ways.
    &["\u{ac00}", "\u{1100}\u{1161}", "\u{3131}\u{314f}", "\u{ffa1}\u{ffc2}", "\u{8c48}", "\u{f900}", "\u{5203}", "\u{5204}"],
    // Letters that a language counts as two, or as a variant.
    &["ae", "\u{e6}", "\u{e4}", "\u{c6}", "a\u{308}", "A\u{308}", "a", "\u{e5}", "aa"],
    &["o", "\u{f6}", "\u{f8}", "oe", "\u{153}", "\u{151}", "o\u{308}", "\u{f2}", "0"],
    &["n", "\u{f1}", "ny", "l\u{b7}l", "ll", "lj", "\u{1c9}", "ch", "c", "\u{107}", "d", "\u{111}", "\u{f0}", "th", "\u{fe}", "l", "\u{142}"],
    &["\u{451}", "\u{435}", "\u{439}", "\u{438}", "\u{44d}", "v", "w", "y", "\u{fc}", "u", "ue"],
    // Without weight in the default order of Unicode.
    &["x", "x\0", "x\u{1}", "x\u{200e}", "x\u{2063}", "x\u{e0001}", "x\u{300}", "\u{fffe}x", "x\u{10fffe}", "x\u{640}"],
    &["x.y", "xy", "x,y", "x y", "x-y", "x/y", "x'y", "x:y", "x(y)", "x\u{b7}y"],
];

/// What stands for nothing, for everything, or for a default.
pub(crate) const STAND_INS: &[&[&str]] = &[
    &["default", "Default", "DEFAULT", "null", "NULL", "Null", "none", "None", "nil", "undefined", "NaN", "N/A", "n/a"],
    &["-", "--", "_", "*", "**", "%", "0", "00", "1", "-1", ".", "..", "/", "\\", "?", "~", "#", "@", "$"],
    &["all", "any", "global", "public", "root", "system", "self", "me", "main", "base", "empty", "absent", "missing", "(none)", "<none>", "<null>"],
    &[" ", "  ", "\0", "\"\"", "''", "()", "[]", "{}", "{null}", "\\N", "\u{2400}", "\u{2205}", "false", "False", "true", "no", "yes", "f", "t"],
    &["tenant", "user", "provider", "account", "key", "id", "tokens", "alice", "github", "__default__", "_default", "$default", ":default", "default_tenant", "single", "primary", "00000000-0000-0000-0000-000000000000"],
];

/// Numbers as text, and what else a column with a type of its own makes of a text.
pub(crate) const NUMBERS: &[&[&str]] = &[
    &["7", "007", "07", "+7", "7.", "7.0", "7.00", "7e0", "70e-1", "0x7", "0o7", "0b111", "\u{ff17}", "\u{667}", " 7", "7 ", "7\n", "VII", "7L", "7f", "7abc"],
    &["0", "-0", "00", "+0", "0.0", "0x0", "0e0", "0e1", "0abc", "false", "-00", ".0", "0."],
    &["1", "true", "1.0", "01", "1e0", "on", "yes", "1_000", "1,000", "1000", "1e3", "1E3", "1.000", "10e2", "1'000"],
    &["9007199254740992", "9007199254740993", "9007199254740992.0", "9.007199254740992e15"],
    &["2147483647", "2147483648", "-2147483648", "4294967295", "4294967296", "0", "-1", "65535", "65536", "255", "256"],
    &["9223372036854775807", "9223372036854775808", "-9223372036854775808", "18446744073709551615", "18446744073709551616", "340282366920938463463374607431768211456", "0"],
    &["2024-01-02", "20240102", "2024-1-2", "2024-01-02T00:00:00Z", "2024-01-02 00:00:00", "2024-01-02T00:00:00+00:00", "1704153600", "02.01.2024"],
    &["1e400", "1e500", "Infinity", "inf", "-inf", "NaN", "nan", "1e-400", "0.1", "0.10", ".1", "0.1000000000000000055511151231257827"],
];

/// Addresses and identifiers, and what is made of them where they are "cleaned".
pub(crate) const ADDRESSES: &[&[&str]] = &[
    &["a+b@x", "a b@x", "a%20b@x", "a%2Bb@x", "a%2bb@x", "a@x", "ab@x", "a+c@x", "a+b@X", "A+b@x", "a+b@x.", "a+b", "a+b%40x", "a&#43;b@x"],
    &["a.b@gmail.com", "ab@gmail.com", "a.b@googlemail.com", "a.b+x@gmail.com", "A.B@gmail.com", "a.b@Gmail.com", "<a.b@gmail.com>", "mailto:a.b@gmail.com", "\"a.b\"@gmail.com", "a.b@gmail.com ", "a..b@gmail.com"],
    &["https://x.example", "https://x.example/", "http://x.example", "https://X.example", "HTTPS://x.example", "https://x.example:443", "https://x.example//", "https://x.example/?", "https://x.example/#", "x.example", "https://www.x.example", "https://x.example./"],
    &["https://x/a", "https://x/a/", "https://x/a/../a", "https://x/./a", "https://x//a", "https://x/%61", "https://x/a?", "https://x/a#", "https://x/a?b=1&c=2", "https://x/a?c=2&b=1", "https://x/A"],
    &["a/b", "a//b", "a/./b", "a/c/../b", "/a/b", "a/b/", "./a/b", "a\\b", "a%2Fb", "a%2fb", "a%252Fb", "b", "..", "../a/b", "a:b", "a|b"],
    &["b\u{fc}cher.example", "xn--bcher-kva.example", "bucher.example", "buecher.example", "b%C3%BCcher.example", "B\u{dc}CHER.example", "b\\u00fccher.example", "b&uuml;cher.example"],
    &["0188f2a4-7c3b-7aaa-8bbb-0123456789ab", "0188F2A4-7C3B-7AAA-8BBB-0123456789AB", "0188f2a47c3b7aaa8bbb0123456789ab", "{0188f2a4-7c3b-7aaa-8bbb-0123456789ab}", "urn:uuid:0188f2a4-7c3b-7aaa-8bbb-0123456789ab"],
    &["127.0.0.1", "127.1", "127.000.000.001", "::1", "0:0:0:0:0:0:0:1", "[::1]", "::ffff:127.0.0.1", "+49 30 123", "+4930123", "004930123", "0030123", "030/123"],
    &["google-oauth2|1", "google-oauth2", "google_oauth2|1", "google|1", "auth0|1", "1", "CN=a,O=b", "cn=a,o=b", "CN=a, O=b", "O=b,CN=a", "DOM\\a", "dom\\a", "a@dom"],
    &["%41", "A", "%2541", "\\x41", "\\u0041", "&#65;", "&#x41;", "QQ==", "QQ", "41", "0x41", "=41", "+AEE-", "\\101", "U+0041"],
];

/// Patterns, quotes, escapes and control characters.
pub(crate) const SPECIAL: &[&[&str]] = &[
    &["' OR 1=1 --", "'; DROP TABLE tokens; --", "\"", "`", "'", "''", "\"\"", "$1", "?", ":user", "@p1", "{0}", "%s", "1' AND '1"],
    &["%", "_", "__", "*", "a*", "a", "b", "ab", "[a-z]", "[ab]", ".*", "a.", "^a$", "a?", "a%", "a_", "\\%", "\\_", "\\*", "(a|b)", "a|b", "?*", "a{1}"],
    &["\\", "\\\\", "\\0", "\\n", "\n", "\r\n", "\r", "\u{7f}", "\u{1b}[31m", "\t", "\u{8}", "a\\", "a\\\\", "\\a"],
    &["../..", "{tag}", "{}", "a{b}c", "{b}", "{b}c", "${HOME}", "$(id)", "&amp;", "&", "<x>", "&lt;x&gt;", "a;b", "a&b", "a=b", "#", "!", "^"],
    &["con", "CON", "con.txt", "con.", "nul", "aux", ".hidden", "a.lock", "a.tmp", "lock", "index", "meta", "version", "a~", "a.json", "a"],
];
