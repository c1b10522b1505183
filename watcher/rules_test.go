package watcher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// A ruleCase is one pattern and one key. The file system is made up: the filter sees the key only, so that names exist that differ in
// case or Unicode form only, on every system.
type ruleCase struct {
	pattern string // of an ignore file at the root, or of a filter with the form "- x" or "+ x"
	key     string
	out     bool
	// git is true if git on a file system without case and with one Unicode form would decide otherwise. The reason is that of
	// ignoreRule.match: we leave out more.
	stricter bool
}

const (
	nfc = "Entw\u00fcrfe"  // composed
	nfd = "Entwu\u0308rfe" // decomposed
)

// ignoreCases are for one ignore file at the root. Git is the oracle.
var ignoreCases = []ruleCase{
	// A name holds at any depth, for files and for directories with everything below.
	{pattern: "drafts", key: "drafts", out: true},
	{pattern: "drafts", key: "drafts/a.md", out: true},
	{pattern: "drafts", key: "drafts/x/y/a.md", out: true},
	{pattern: "drafts", key: "x/drafts/a.md", out: true},
	{pattern: "drafts", key: "drafts.md"},
	{pattern: "drafts", key: "olddrafts/a.md"},
	{pattern: "drafts/", key: "drafts/a.md", out: true},
	{pattern: "drafts/", key: "x/drafts/a.md", out: true},
	{pattern: "drafts/", key: "drafts"},
	{pattern: "drafts/**", key: "drafts/a.md", out: true},
	{pattern: "drafts/**", key: "drafts/x/a.md", out: true},
	{pattern: "drafts/**", key: "x/drafts/a.md"},
	{pattern: "drafts/*", key: "drafts/a.md", out: true},
	{pattern: "drafts/*", key: "drafts/x/a.md", out: true},
	{pattern: "drafts/*", key: "drafts"},
	{pattern: "drafts/*.md", key: "drafts/a.md", out: true},
	{pattern: "drafts/*.md", key: "drafts/x/a.md"},
	{pattern: "/drafts", key: "drafts/a.md", out: true},
	{pattern: "/drafts", key: "x/drafts/a.md"},
	{pattern: "/drafts/", key: "drafts/a.md", out: true},
	{pattern: "/drafts/", key: "drafts"},
	{pattern: "x/drafts", key: "x/drafts/a.md", out: true},
	{pattern: "x/drafts", key: "y/x/drafts/a.md"},
	{pattern: "**/drafts", key: "y/x/drafts/a.md", out: true},
	{pattern: "**/drafts/a.md", key: "drafts/a.md", out: true},
	{pattern: "x/**/a.md", key: "x/a.md", out: true},
	{pattern: "x/**/a.md", key: "x/y/z/a.md", out: true},
	{pattern: "x/**/a.md", key: "x/y/z/b.md"},
	{pattern: "x/*/a.md", key: "x/y/a.md", out: true},
	{pattern: "x/*/a.md", key: "x/y/z/a.md"},
	{pattern: "**", key: "a/b.md", out: true},
	{pattern: "*", key: "a/b.md", out: true},
	{pattern: "/*", key: "a/b.md", out: true},
	{pattern: "/*.md", key: "a.md", out: true},
	{pattern: "/*.md", key: "x/a.md"},
	{pattern: "a**b", key: "axxb", out: true},
	{pattern: "a**b", key: "ax/xb"},
	// Wildcards.
	{pattern: "*.pdf", key: "a.pdf", out: true},
	{pattern: "*.pdf", key: "x/a.pdf", out: true},
	{pattern: "*.pdf", key: "x.pdf/a.md", out: true},
	{pattern: "*.pdf", key: "a.pdf.md"},
	{pattern: "?.md", key: "a.md", out: true},
	{pattern: "?.md", key: "ab.md"},
	{pattern: "a?c.md", key: "a/c.md"},
	{pattern: "[ab].md", key: "b.md", out: true},
	{pattern: "[ab].md", key: "c.md"},
	{pattern: "[!ab].md", key: "c.md", out: true},
	{pattern: "[!ab].md", key: "a.md"},
	{pattern: "[^ab].md", key: "c.md", out: true},
	{pattern: "[a-c]1.md", key: "b1.md", out: true},
	{pattern: "[a-c]1.md", key: "d1.md"},
	{pattern: "[[:digit:]].md", key: "7.md", out: true},
	{pattern: "[[:digit:]].md", key: "x.md"},
	{pattern: "[]a].md", key: "].md", out: true},
	{pattern: "[a-].md", key: "-.md", out: true},
	{pattern: `[*]x.md`, key: "*x.md", out: true},
	{pattern: `[*]x.md`, key: "yx.md"},
	{pattern: `\*x.md`, key: "*x.md", out: true},
	{pattern: `\*x.md`, key: "yx.md"},
	{pattern: `\!a.md`, key: "!a.md", out: true},
	{pattern: `\#a.md`, key: "#a.md", out: true},
	{pattern: "#a.md", key: "#a.md"},
	{pattern: "a.md ", key: "a.md", out: true},
	{pattern: `a\ `, key: "a ", out: true},
	{pattern: "a b.md", key: "a b.md", out: true},
	{pattern: "a.md\r", key: "a.md", out: true},
	{pattern: "Smith, John.md", key: "Smith, John.md", out: true},
	{pattern: "#recycle\n\\#recycle", key: "#recycle/a.md", out: true},
	// The last rule decides, and nothing below a directory that is left out comes back.
	{pattern: "*.md\n!keep.md", key: "keep.md"},
	{pattern: "*.md\n!keep.md", key: "x/keep.md"},
	{pattern: "*.md\n!keep.md", key: "a.md", out: true},
	{pattern: "!keep.md\n*.md", key: "keep.md", out: true},
	{pattern: "drafts/\n!drafts/keep.md", key: "drafts/keep.md", out: true},
	{pattern: "drafts/*\n!drafts/keep.md", key: "drafts/keep.md"},
	{pattern: "drafts/*\n!drafts/keep.md", key: "drafts/b.md", out: true},
	{pattern: "/*\n!/docs", key: "docs/a.md"},
	{pattern: "/*\n!/docs", key: "x/a.md", out: true},
	{pattern: "*\n!*/\n!*.md", key: "x/y/a.md"},
	{pattern: "*\n!*/\n!*.md", key: "x/y/a.pdf", out: true},
	// Rules that leave out do not distinguish case.
	{pattern: "drafts/", key: "Drafts/a.md", out: true},
	{pattern: "Drafts/", key: "drafts/a.md", out: true},
	{pattern: "private", key: "x/PRIVATE/a.md", out: true},
	{pattern: "*.pdf", key: "SCAN0001.PDF", out: true},
	{pattern: "*.PDF", key: "a.pdf", out: true},
	{pattern: "a/**/z.md", key: "A/b/Z.MD", out: true},
	{pattern: "[a-c]1.md", key: "B1.md", out: true},
	{pattern: "[A-C]1.md", key: "b1.md", out: true},
	{pattern: "readme.md", key: "README.md", out: true},
	{pattern: "\u00fcbung.md", key: "\u00dcbung.md", out: true, stricter: true}, // git folds ASCII only
	{pattern: "\u03c3.md", key: "\u03a3.md", out: true, stricter: true},
	{pattern: "[\u00e4\u00f6].md", key: "\u00d6.md", out: true, stricter: true},
	{pattern: "?.md", key: "\u00d6.md", out: true, stricter: true}, // git matches bytes
	// They do not distinguish the Unicode forms.
	{pattern: nfc + "/", key: nfd + "/a.md", out: true},
	{pattern: nfd + "/", key: nfc + "/a.md", out: true},
	{pattern: nfc, key: "x/" + nfd + "/a.md", out: true},
	{pattern: nfc + "*.md", key: nfd + "-1.md", out: true},
	{pattern: nfd + "*.md", key: nfc + "-1.md", out: true},
	{pattern: "*" + nfc, key: "alte " + nfd + "/a.md", out: true},
	{pattern: "entw\u00dcrfe", key: nfd + "/a.md", out: true, stricter: true},
	{pattern: "[\u00e4\u00fc].md", key: "u\u0308.md", out: true, stricter: true},
	// A negated rule takes back exactly what it names: more would publish what another rule hides.
	{pattern: "*.md\n!keep.md", key: "KEEP.md", out: true, stricter: true},
	{pattern: "*.md\n!Keep.md", key: "keep.md", out: true, stricter: true},
	{pattern: "*.md\n!" + nfc + ".md", key: nfd + ".md", out: true, stricter: true},
	{pattern: "Drafts/\n!drafts/", key: "Drafts/a.md", out: true, stricter: true},
	{pattern: "Drafts/\n!Drafts/", key: "Drafts/a.md"},
}

// gitIgnores asks git which of the cases it ignores, on a file system without case and with one form of each name. Each case has a
// folder of its own.
func gitIgnores(t *testing.T, cases []ruleCase) []bool {
	t.Helper()
	repo := t.TempDir()
	git := func(stdin string, args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir = repo
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "XDG_CONFIG_HOME="+repo, "HOME="+repo)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) {
			t.Fatalf("git %v: %v", args, err)
		}
		return string(out)
	}
	git("", "init", "-q")
	// check-ignore does not bring the names to one form, as git does when it lists a directory of macOS.
	oneForm := func(s string) string { return strings.ReplaceAll(s, nfd, nfc) }
	var keys strings.Builder
	for i, c := range cases {
		dir := filepath.Join(repo, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte(oneForm(c.pattern)), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&keys, "%d/%s\x00", i, oneForm(c.key))
	}
	out := strings.Split(git(keys.String(), "-c", "core.ignorecase=true", "check-ignore", "-z", "--no-index", "--stdin"), "\x00")
	ignored := make([]bool, len(cases))
	for i, c := range cases {
		ignored[i] = slices.Contains(out, fmt.Sprintf("%d/%s", i, oneForm(c.key)))
	}
	return ignored
}

func TestIgnoreCasesAgainstGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("this test compares with git, which is not installed: ", err)
	}
	byGit := gitIgnores(t, ignoreCases)
	for i, c := range ignoreCases {
		if got := ignoredByUs(t, map[string]string{"": c.pattern}, c.key); got != c.out {
			t.Errorf("%q: %q is ignored: %v, want %v", c.pattern, c.key, got, c.out)
		}
		if byGit[i] != (c.out != c.stricter) {
			t.Errorf("%q: git ignores %q: %v, want %v", c.pattern, c.key, byGit[i], c.out != c.stricter)
		}
		// The rules of a deeper file see the rest of the key.
		if got := ignoredByUs(t, map[string]string{nfd + "/Sub/": c.pattern}, nfd+"/Sub/"+c.key); got != c.out {
			t.Errorf("in a folder: %q: %q is ignored: %v, want %v", c.pattern, c.key, got, c.out)
		}
	}
}

// globCases are rules of filter files; "- x" also stands for --exclude x, and "+ x" for --include x.
var globCases = []ruleCase{
	// An exclude covers what is below the directory that it names.
	{pattern: "- private", key: "private", out: true},
	{pattern: "- private", key: "private/x.md", out: true},
	{pattern: "- private", key: "a/private/b/x.md", out: true},
	{pattern: "- private", key: "private.md"},
	{pattern: "- private", key: "notprivate/x.md"},
	{pattern: "- private/", key: "private/b/x.md", out: true},
	{pattern: "- private/**", key: "a/private/b/x.md", out: true},
	{pattern: "- private/*", key: "private/b/x.md", out: true},
	{pattern: "- private/*.md", key: "private/x.md", out: true},
	{pattern: "- private/*.md", key: "private/b/x.md"},
	{pattern: "- /private", key: "private/b/x.md", out: true},
	{pattern: "- /private", key: "a/private/x.md"},
	{pattern: "- a/private", key: "a/private/x.md", out: true},
	{pattern: "- a/private", key: "b/a/private/x.md", out: true},
	{pattern: "- **/private", key: "b/private/x.md", out: true},
	{pattern: "- {private,secret}", key: "secret/x.md", out: true},
	{pattern: "- priv*", key: "private/x.md", out: true},
	{pattern: "- a/**/b", key: "a/x/y/b/z.md", out: true},
	{pattern: "- a/**/b", key: "a/x/y/c/z.md"},
	{pattern: "- *.pdf", key: "x.pdf", out: true},
	{pattern: "- *.pdf", key: "x.pdf/a.md", out: true},
	{pattern: "- *.md", key: "x.mdx.txt"},
	{pattern: "- *d.md", key: "ad.md.txt/ad.md", out: true},
	{pattern: "- *.md", key: "a.mda.txt"},
	{pattern: "- Smith, John.md", key: "Smith, John.md", out: true},
	// It does not distinguish case.
	{pattern: "- private", key: "Private/x.md", out: true},
	{pattern: "- PRIVATE/**", key: "private/x.md", out: true},
	{pattern: "- *.pdf", key: "A.PDF", out: true},
	{pattern: "- *.PDF", key: "a.pdf", out: true},
	{pattern: "- *.PDF", key: "X.Pdf/a.md", out: true},
	{pattern: "- /Docs/Old", key: "docs/OLD/x.md", out: true},
	{pattern: "- [!a]*.md", key: "A.md", out: true},
	{pattern: "- [A-C]*.md", key: "b.md", out: true},
	{pattern: "- {Old,New}", key: "NEW/a.md", out: true},
	{pattern: "- \u00dcbung*", key: "\u00fcbung/x.md", out: true},
	{pattern: "- STRASSE", key: "strasse/x.md", out: true},
	{pattern: "- \u1e9e.md", key: "\u00df.md", out: true},
	{pattern: "- kelvin", key: "\u212aelvin/x.md", out: true},
	// It does not distinguish the Unicode forms.
	{pattern: "- " + nfc, key: nfd + "/x.md", out: true},
	{pattern: "- " + nfd, key: nfc + "/x.md", out: true},
	{pattern: "- " + nfc + "/**", key: "a/" + nfd + "/x.md", out: true},
	{pattern: "- *" + nfc + "*", key: "alte " + nfd + "/x.md", out: true},
	{pattern: "- *w\u00fcrfe", key: nfd + "/x.md", out: true},
	{pattern: "- entw\u00dcrfe", key: nfd + "/x.md", out: true},
	{pattern: "- \uac00.md", key: "\u1100\u1161.md", out: true},
	{pattern: "- e*.md", key: "e\u0301.md", out: true},
	// An include ignores the case of endings, and the Unicode form.
	{pattern: "+ **/*.pdf\n- *", key: "SCAN0001.PDF"},
	{pattern: "+ **/*.PDF\n- *", key: "a.pdf"},
	{pattern: "+ *.{PDF,md}\n- *", key: "a.Md"},
	{pattern: "+ {*.PDF,*.md}\n- *", key: "a.pdf"},
	{pattern: "+ docs/**/*.pdf\n- *", key: "docs/x/Terms.Pdf"},
	{pattern: "+ docs/**/*.pdf\n- *", key: "Docs/x/a.pdf", out: true},
	{pattern: "+ report.pdf\n- *", key: "report.PDF"},
	{pattern: "+ report.pdf\n- *", key: "Report.pdf", out: true},
	{pattern: "+ README\n- *", key: "README"},
	{pattern: "+ README\n- *", key: "readme", out: true},
	{pattern: "+ v1.2.PDF\n- *", key: "v1.2.pdf"},
	{pattern: "+ A,b.pdf\n- *", key: "A,b.PDF"},
	{pattern: "+ A,b.pdf\n- *", key: "a,b.pdf", out: true},
	{pattern: "+ " + nfc + ".pdf\n- *", key: nfd + ".pdf"},
	{pattern: "+ " + nfd + "/*.pdf\n- *", key: nfc + "/x.PDF"},
	{pattern: "+ docs\n- *", key: "docs/a.md", out: true}, // an include names no directory
	{pattern: "+ docs/\n- *", key: "docs/a.md"},
	// An include that matches only so yields to the excludes after it.
	{pattern: "+ *.pdf\n- SECRET.PDF", key: "SECRET.PDF", out: true},
	{pattern: "+ *.pdf\n- secret.pdf", key: "secret.PDF", out: true},
	{pattern: "+ *.pdf\n- secret.pdf", key: "secret.pdf"}, // the first rule that matches exactly decides
	{pattern: "+ *.pdf\n- secret/**\n- *", key: "secret/a.PDF", out: true},
	{pattern: "+ *.pdf\n+ *.PDF\n- secret/**\n- *", key: "secret/a.PDF"},
	{pattern: "+ keep.md\n- *.md", key: "keep.md"},
	{pattern: "+ keep.md\n- *.md", key: "Keep.md", out: true},
	{pattern: "+ drafts/keep.md\n- drafts", key: "drafts/keep.md"},
	{pattern: "+ drafts/keep.md\n- drafts", key: "Drafts/keep.md", out: true},
	{pattern: "+ drafts/keep.md\n- drafts", key: "drafts/x/b.md", out: true},
	// A default exclusion yields to an include that names it.
	{pattern: "+ **", key: ".obsidian/plugins/x/data.json", out: true},
	{pattern: "+ **/*.json", key: ".obsidian/plugins/x/data.json", out: true},
	{pattern: "+ .obsidian/**", key: ".obsidian/plugins/x/data.json"},
	{pattern: "+ .obsidian/README.md", key: ".obsidian/README.md"},
	{pattern: "+ .obsidian/README.md", key: ".obsidian/other.md", out: true}, // the include names one
	{pattern: "+ **/*.md\n+ .config/a.json", key: ".config/b.md", out: true},
	{pattern: "+ .docker/**", key: ".config/a.json", out: true},
	{pattern: "+ .*/**", key: ".hidden/a.md"},
	{pattern: "+ .*/**", key: ".git/a.md", out: true},
	{pattern: "+ **\n+ .hidden/**", key: ".other/a.md", out: true},
	{pattern: "+ *.sync-conflict-*.md", key: "a.sync-conflict-20240101-101010-ABCDEFG.md"},
	{pattern: "+ client_secret_docs.json", key: "client_secret_docs.json"},
	{pattern: "+ client_secret_docs.json", key: "client_secret_1.json", out: true},
	{pattern: "+ #recycle/**", key: "#recycle/a.md"},
	{pattern: "+ **", key: "#recycle/a.md", out: true},
	{pattern: "+ .kbsyncignore", key: "docs/.kbsyncignore", out: true},
}

// decide decides on a key as a walk does: from the root down.
func decide(f *Filter, key string, ignores *ignoreFile) verdict {
	for i := range key {
		if key[i] == '/' {
			if v := f.directory(key[:i], ignores, nil); v.out {
				return v
			}
		}
	}
	return f.document(key, ignores, nil)
}

func TestGlobCases(t *testing.T) {
	for _, c := range globCases {
		f := filter(t, FilterOptions{Rules: rules(t, c.pattern), Include: []string{"**", "#none"}})
		if v := decide(f, c.key, nil); v.out != c.out {
			t.Errorf("%q: %q is left out: %v, want %v", c.pattern, c.key, v, c.out)
		}
		glob, ok := strings.CutPrefix(c.pattern, "- ")
		if !ok || strings.Contains(glob, "\n") {
			continue
		}
		f = filter(t, FilterOptions{Exclude: []string{glob}, Include: []string{"**"}})
		if v := decide(f, c.key, nil); v.out != c.out {
			t.Errorf("--exclude %q: %q is left out: %v, want %v", glob, c.key, v, c.out)
		}
		if v := f.document(c.key, nil, nil); v.out != c.out {
			t.Errorf("--exclude %q, without its directories: %q is left out: %v, want %v", glob, c.key, v, c.out)
		}
	}
	if n := len(globCases) + len(ignoreCases); n < 150 {
		t.Errorf("only %d cases", n)
	}
}

// Each default exclusion is a valid pattern in lower case, and leaves out what it is for.
func TestDefaultExclusionsLeaveOut(t *testing.T) {
	f := filter(t, FilterOptions{Include: []string{"**"}})
	for _, key := range []string{
		".obsidian/workspace.json", ".docker/config.json", ".config/gcloud/application_default_credentials.json", "service-account.json",
		"my-service-account-key.json", "credentials.json", "client_secret_1.apps.json", "x-firebase-adminsdk-1.json", "node_modules/left-pad/README.md",
		".venv/lib/LICENSE.txt", "env/lib/python3/site-packages/foo/LICENSE.txt", ".docusaurus/globalData.json", "#recycle/a.md", "@Recycle/a.md",
		"@Recently-Snapshot/d1/a.md", "#snapshot/GMT/a.md", ".snapshot/a.md", ".snapshots/a.md", "~snapshot/a.md", ".zfs/snapshot/a.md", ".recycle/a.md",
		".stversions/a.md", ".dropbox.cache/a.md", "@GMT-2024.01.01-00.00.00/a.md", ".rsync-partial/a.md", ".~tmp~/a.md", ".tmp.drivedownload/a.md",
		"a.download/a.md", "returns.sync-conflict-20240101-101010-ABCDEFG.md", "returns (Ann Example's conflicted copy 2024-05-01).md",
		"returns (conflicted copy 2024-05-01 101010).md", "returns (Case Conflict).md", "returns (Case Conflict 1).md", "returns-laptop-safeBackup-0001.md",
		"returns.conflict1.md", "returns.md.conflict2", "returns_conflict-20240101-101010.md", ".hidden.md", ".hidden/a.md", "x/.b/c.md",
	} {
		if v := decide(f, key, nil); !v.out || v.place != "default" {
			t.Errorf("%q: %+v", key, v)
		}
	}
	for _, key := range []string{
		"docs/conflict of interest.md", "docs/conflict-policy.md", "credentials and access.md", "snapshot/a.md", "recycle/a.md", "modules/a.md",
		"service-accounts.md", "a.b.c.md", "download/a.md", "secrets of success.md", "environment/a.md", "resolving.conflicts.md",
	} {
		if v := decide(f, key, nil); v.out {
			t.Errorf("%q: %+v", key, v)
		}
	}
	for _, x := range DefaultExclusions() {
		for _, pattern := range slices.Concat(x.Files, x.Directories) {
			if _, problem := parseWildcards(pattern, 0, true, ofBytes); problem != "" || pattern != strings.ToLower(pattern) {
				t.Errorf("%q %s", pattern, problem)
			}
		}
		if x.Kind == "" || x.Why == "" {
			t.Errorf("%+v has no reason", x)
		}
	}
}

// A pattern that can match nothing, or that says something else than its author meant, is an error with the remedy.
func TestPatternsThatMatchNothing(t *testing.T) {
	for pattern, remedy := range map[string]string{
		`drafts\**`: "write / between folders", `drafts\*`: "[*]", `docs\drafts`: "backslash", `docs/old\drafts/`: "backslash",
		"*.md, *.pdf": "each pattern by itself", "*.md,*.pdf": "each pattern", "*.md;*.pdf": "each pattern", "*.md *.pdf": "each pattern",
		"drafts/**, private/**": "each pattern", "./drafts/": "as it is listed", "docs/../drafts": "as it is listed", "docs//drafts": "as it is listed",
		"/": "matches nothing",
	} {
		_, err := NewFilter(FilterOptions{Exclude: []string{pattern}})
		if p, ok := errors.AsType[*PatternError](err); !ok || !strings.Contains(p.Error(), remedy) {
			t.Errorf("--exclude %q: %v", pattern, err)
		}
		_, err = parseIgnore([]byte(pattern), "", nil)
		if p, ok := errors.AsType[*RuleFileError](err); !ok || !strings.Contains(p.Error(), remedy) || !strings.Contains(p.Error(), ".kbsyncignore:1") {
			t.Errorf("the ignore file %q: %v", pattern, err)
		}
	}
	for _, pattern := range []string{"a, b.md", "**/a, b/", `\*.md`, `a\ b`, `\[x\].md`, `[\w]x`, "a;b.md", "My Docs/**", "x/*, y.md"} {
		if _, err := NewFilter(FilterOptions{Exclude: []string{pattern}}); err != nil {
			t.Error(err)
		}
		if _, err := parseIgnore([]byte(pattern), "", nil); err != nil {
			t.Error(err)
		}
	}
}

func utf16Bytes(order binary.ByteOrder, text string) []byte {
	var b bytes.Buffer
	for _, u := range utf16.Encode([]rune(text)) {
		_ = binary.Write(&b, order, u)
	}
	return b.Bytes()
}

// Rule files in every encoding that editors write hold the same rules. One that is not understood is an error with its name.
func TestRuleFilesInAnyEncoding(t *testing.T) {
	text := "drafts/\n" + nfc + "/\n\U0001F512*\n"
	crlf := strings.ReplaceAll(text, "\n", "\r\n")
	for name, data := range map[string][]byte{
		"UTF-8": []byte(text), "UTF-8 with a mark": []byte("\ufeff" + text), "CRLF": []byte(crlf), "CR": []byte(strings.ReplaceAll(text, "\n", "\r")),
		"UTF-16LE": utf16Bytes(binary.LittleEndian, "\ufeff"+crlf), "UTF-16BE": utf16Bytes(binary.BigEndian, "\ufeff"+crlf),
		"UTF-16LE without a mark": utf16Bytes(binary.LittleEndian, crlf), "UTF-16BE without a mark": utf16Bytes(binary.BigEndian, text),
	} {
		f, err := parseIgnore(data, "", nil)
		if err != nil || len(f.rules) != 3 {
			t.Errorf("%s: %+v, %v", name, f, err)
			continue
		}
		for _, key := range []string{"drafts", nfd} {
			if _, ok := f.match(key, true); !ok {
				t.Errorf("%s: %q is not ignored", name, key)
			}
		}
		if _, ok := f.match("\U0001F512.md", false); !ok {
			t.Errorf("%s: the lock is not ignored", name)
		}
		filterFile := []byte("- drafts/\n")
		if strings.HasPrefix(name, "UTF-16LE") {
			filterFile = utf16Bytes(binary.LittleEndian, "\ufeff- drafts/\r\n")
		}
		if rules, err := ParseRules(bytes.NewReader(filterFile), "f"); err != nil || len(rules) != 1 || rules[0].Glob != "drafts/" {
			t.Errorf("%s: %v, %v", name, rules, err)
		}
	}
	for name, data := range map[string]string{
		"Windows-1252": "Entw\xfcrfe/\n", "NUL": "drafts\x00/", "half of UTF-16": "\xff\xfed\x00r", "a lone surrogate": "\xff\xfe\x00\xd8a\x00",
		"UTF-32": "\xff\xfe\x00\x00d\x00\x00\x00", "a ZIP file": "PK\x03\x04\x00\x00\x80\x81",
	} {
		if _, err := parseIgnore([]byte(data), "x/", nil); !endsListing(err) || !strings.Contains(err.Error(), "x/.kbsyncignore") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := ParseRules(strings.NewReader(data), "rules.txt"); !endsListing(err) || !strings.Contains(err.Error(), "rules.txt") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeRules(f *testing.F) {
	f.Add([]byte("\xff\xfea\x00"))
	f.Add([]byte("a\r\nb\rc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines, err := decodeRules(data)
		for _, line := range lines {
			if err != nil || strings.ContainsAny(line, "\r\n\x00") {
				t.Errorf("%q, %v", line, err)
			}
		}
	})
}

// Of two forms of one name the fold is the same, and folding again changes nothing.
func FuzzFold(f *testing.F) {
	f.Add(nfc)
	f.Add("\u212b/\u1e9e\ufb03\xff")
	f.Fuzz(func(t *testing.T, s string) {
		folded := fold(s)
		if again := fold(folded); again != folded {
			t.Errorf("%q folds to %q, then to %q", s, folded, again)
		}
		if i := strings.IndexByte(s, '/'); i >= 0 && fold(s[:i])+"/"+fold(s[i+1:]) != folded {
			t.Errorf("%q folds to %q, but not its parts", s, folded)
		}
		if upper := strings.ToUpper(s); isASCII(s) && fold(upper) != folded {
			t.Errorf("%q and %q fold to %q and %q", s, upper, folded, fold(upper))
		}
	})
}
