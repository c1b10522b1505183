package watcher

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/state"
)

func rules(t *testing.T, text string) []Rule {
	t.Helper()
	r, err := ParseRules(strings.NewReader(text), "filters.txt")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		name  string
		opts  FilterOptions
		rules string
		in    []string
		out   []string
	}{
		{
			name: "default types",
			in:   []string{"a.md", "x/README.TXT", "x/y/a.PDF", "a.tar.json", "data.xml", "a.docx"},
			out:  []string{"a.go", "README", "md", "a.md.bak", "x.md/a.bin", "a.exe", ".md"},
		},
		{
			name: "globs match from any directory unless they begin with a slash",
			opts: FilterOptions{Include: []string{"*.md", "/top.txt", "docs/*.txt", "/only/*.csv", "x?.log", "{a,b}.cfg"}},
			in:   []string{"a.md", "x/a.md", "top.txt", "docs/a.txt", "x/docs/a.txt", "only/a.csv", "x/x1.log", "b.cfg"},
			out:  []string{"x/top.txt", "docs/x/a.txt", "x/only/a.csv", "a.pdf", "c.cfg", "x.log", "a.md/b"},
		},
		{
			name: "** matches zero directories, and everything below",
			opts: FilterOptions{Include: []string{"**/*.md", "docs/**", "/a/**/z.bin", "raw/"}},
			in:   []string{"a.md", "x/y/a.md", "docs/a", "docs/x/y/z", "x/docs/a", "a/z.bin", "a/b/c/z.bin", "x/raw/a/b"},
			out:  []string{"docs", "x/a/z.bin", "raw", "docsx/a"},
		},
		{
			name: "an exclude goes before an include",
			opts: FilterOptions{Include: []string{"**/*.md"}, Exclude: []string{"drafts/**", "*.tmp.md"}},
			in:   []string{"a.md", "draft/a.md"},
			out:  []string{"drafts/a.md", "x/drafts/y/a.md", "a.tmp.md", "a.txt"},
		},
		{
			name: "excludes alone leave the default types",
			opts: FilterOptions{Exclude: []string{"/drafts/"}},
			in:   []string{"a.md", "x/drafts/a.md"},
			out:  []string{"drafts/a.md", "a.go"},
		},
		{
			name:  "the first rule wins",
			rules: "# comment\n; another\n\n+ keep.md\n- *.md\r\n+ /code/**\n- code/**\n",
			in:    []string{"keep.md", "x/keep.md", "a.txt", "code/main.go"},
			out:   []string{"a.md", "x/a.md", "x/code/main.go", "x/code/a.txt", "main.go"},
		},
		{
			name:  "! drops the rules before it",
			rules: "- *.md\n!\n- *.txt\n",
			in:    []string{"a.md"},
			out:   []string{"a.txt"},
		},
		{
			name:  "rules go before both, and may end in - *",
			opts:  FilterOptions{Exclude: []string{"*.md"}, Include: []string{"*.txt"}},
			rules: "+ a.md\n- b.txt\n+ c.bin\n- secret/**\n",
			in:    []string{"a.md", "c.bin", "x.txt"},
			out:   []string{"b.md", "b.txt", "secret/x.txt", "d.bin"},
		},
		{name: "- * at the end", rules: "+ *.go\n- *\n", in: []string{"a.go"}, out: []string{"a.md", "x/a.md"}},
		{
			name: "** lifts no default exclusion",
			opts: FilterOptions{Include: []string{"**"}},
			in:   []string{"a.go", "x/README", "systems/a", "kid_1", "environment", "tmp/a", "part/a"},
			out: []string{
				".env", "x/.env.local", "server.pem", "x/Private.KEY", "id_rsa", "x/id_ed25519.pub", ".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.ini",
				"~$report.docx", ".~lock.report.odt#", "a.md~", "#a.md#", ".#a.md", ".a.md.swp", "movie.part", "a.pdf.crdownload", "a.tmp", ".gitignore",
				"._a.md", "keys.p12", ".kbsyncignore", ".nfs000001",
			},
		},
		{
			name: "an include by name lifts a default exclusion",
			opts: FilterOptions{Include: []string{"**", ".env.example", "docs/id_cards.md", "*.pem"}},
			in:   []string{".env.example", "x/.env.example", "docs/id_cards.md", "certs/a.pem"},
			out:  []string{".env", "id_cards.md", "a.key"},
		},
		{
			name: "an exclude goes before an include by name",
			opts: FilterOptions{Include: []string{".env.example"}, Exclude: []string{"x/**"}},
			in:   []string{".env.example"},
			out:  []string{"x/.env.example"},
		},
		{
			name: "kbsync's own files",
			opts: FilterOptions{Include: []string{"**", "kbsync.db"}, Own: []string{"conf/kbsync.yaml", "docs/token"}, OwnState: []string{"kbsync.db"}},
			in: []string{
				"kbsync.dbx", "x/kbsync.db", "kbsync.db.d/a", "kbsync.yaml", "docs/token.md", "docs/token-2.md", "token", "conf/kbsync.yaml.md",
				"kbsync.db.md", "kbsync.db-notes.md", "kbsync.db.0123456789ab.lock.md", "kbsync.db.docs.lock",
			},
			out: []string{
				"kbsync.db", "kbsync.db-wal", "kbsync.db-shm", "kbsync.db-journal", "kbsync.db.0123456789ab.lock", "kbsync.db.listen-token", "kbsync.db.backup-20261126T064500Z", "conf/kbsync.yaml", "docs/token", "docs/Token",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.opts.Rules = rules(t, c.rules)
			f := filter(t, c.opts)
			for _, key := range c.in {
				if v := f.document(key, nil, nil); v.out {
					t.Errorf("%q is left out: %+v", key, v)
				}
			}
			for _, key := range c.out {
				if v := f.document(key, nil, nil); !v.out {
					t.Errorf("%q is taken: %+v", key, v)
				}
			}
			// No directory above a taken key is left out.
			for _, key := range c.in {
				for i := range key {
					if key[i] == '/' && f.directory(key[:i], nil, nil).out {
						t.Errorf("%q is taken, but its directory %q is left out", key, key[:i])
					}
				}
			}
		})
	}
}

func TestFilterDirectories(t *testing.T) {
	f := filter(t, FilterOptions{Include: []string{"/docs/**/*.md", "/more/a/*.txt"}, Exclude: []string{"drafts/**", "/docs/old/"}})
	for key, out := range map[string]bool{
		"docs": false, "docs/x": false, "more": false, "more/a": false, "more/a/b": false,
		"other": true, "doc": true, "docs2": true, "more/b": true, "docs/drafts": true, "docs/x/drafts": true, "docs/old": true,
		"docs/.git": true,
	} {
		if got := f.directory(key, nil, nil).out; got != out {
			t.Errorf("%s: left out %v", key, got)
		}
	}
	f = filter(t, FilterOptions{Rules: rules(t, "+ keep.md\n- drafts/**\n"), Include: []string{"**", ".vscode/settings.json"}})
	for key, out := range map[string]bool{"drafts": false, ".vscode": false, ".git": true, "node/.GIT": true, "cvs": true, "x/.idea": true} {
		if got := f.directory(key, nil, nil).out; got != out {
			t.Errorf("%s: left out %v", key, got)
		}
	}
}

func TestPatternErrors(t *testing.T) {
	for _, c := range []struct {
		opts  FilterOptions
		rules string
		want  []string
	}{
		{opts: FilterOptions{Include: []string{"[a"}}, want: []string{"include: ", `"[a"`, "close every ["}},
		{opts: FilterOptions{Include: []string{""}}, want: []string{"empty"}},
		{opts: FilterOptions{Exclude: []string{"/"}}, want: []string{"exclude: "}},
		{opts: FilterOptions{Exclude: []string{"**"}}, want: []string{"leaves out everything"}},
		{opts: FilterOptions{Exclude: []string{"*"}}, want: []string{"leaves out everything"}},
		{opts: FilterOptions{Include: []string{"a/../b"}}, want: []string{`".."`}},
		{opts: FilterOptions{Include: []string{"a//b"}}, want: []string{"matches nothing"}},
		{opts: FilterOptions{Include: []string{"./a"}}, want: []string{`"."`}},
		{opts: FilterOptions{Include: []string{"**.md"}}, want: []string{"as in **/*.md"}},
		{opts: FilterOptions{Exclude: []string{"a.md", "{{x}}"}}, want: []string{"regular expression"}},
		{rules: "+ a\n- [x\n", want: []string{"filters.txt:2: "}},
		{rules: "- *\n+ a\n", want: []string{"filters.txt:1: ", "leaves out everything"}},
	} {
		c.opts.Rules = rules(t, c.rules)
		_, err := NewFilter(c.opts)
		if _, ok := errors.AsType[*PatternError](err); !ok {
			t.Errorf("%+v: got %v", c.opts, err)
			continue
		}
		for _, text := range c.want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%+v: the message does not contain %q: %v", c.opts, text, err)
			}
		}
	}
	for _, text := range []string{"*.md", "include *.md", "+*.md"} {
		_, err := ParseRules(strings.NewReader("\n"+text), "f")
		if p, ok := errors.AsType[*PatternError](err); !ok || p.Place != "f:2" {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("*.md", "drafts/**", "drafts/a.md")
	f.Add("/a/**/b", "[x-", "a/b")
	f.Add("{a,b{c,d}}/**", `\*`, "\xff/x")
	f.Fuzz(func(t *testing.T, include, exclude, key string) {
		filter, err := NewFilter(FilterOptions{Include: []string{include}, Exclude: []string{exclude}})
		if err != nil || !validKey(key) {
			return
		}
		if filter.document(key, nil, nil).out {
			return
		}
		for i := range key {
			if key[i] == '/' && filter.directory(key[:i], nil, nil).out && directoryExclusions.find(key[strings.LastIndexByte(key[:i], '/')+1:i]) == nil {
				t.Errorf("%q is taken, but its directory %q is left out", key, key[:i])
			}
		}
	})
}

func FuzzIgnore(f *testing.F) {
	f.Add([]byte("a/**/b\n!*.md\n"), "a/x/b")
	f.Add([]byte("[[:alpha:]-z\\]]*\n**\n"), "q")
	f.Fuzz(func(t *testing.T, data []byte, key string) {
		if file, err := parseIgnore(data, "", nil); err == nil {
			file.match(key, false)
			file.match(key, true)
		}
	})
}

func TestIgnoreFilesOfATree(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.md", "draft.md", "sub/draft.md", "sub/deep/draft.md", "sub/deep/b.md", "out/c.md", "out/keep.md", "bad/d.md", "z.md")
	write(t, filepath.Join(dir, ".kbsyncignore"), "draft.md\n/out/\n!out/keep.md\n")
	write(t, filepath.Join(dir, "sub", "deep", ".kbsyncignore"), "!draft.md\nb.*\n")
	d := NewDirectory(dir, DirectoryOptions{})
	wantKeys(t, d, "", "a.md", "bad/d.md", "sub/deep/draft.md", "z.md")
	wantKeys(t, d, "sub/", "sub/deep/draft.md")
	wantKeys(t, d, "sub/deep/draft.md", "sub/deep/draft.md")
	wantKeys(t, d, "out/")
	wantKeys(t, d, "out/keep.md")

	// An invalid pattern ends the listing, so that no ignored document is uploaded, not even one that an earlier scan recorded.
	write(t, filepath.Join(dir, "bad", ".kbsyncignore"), "ok\nsecret[\n")
	keys, errs := listing(t, d, "")
	if !slices.Equal(keys, []string{"a.md"}) || len(errs) != 1 || !strings.Contains(errs[0].Error(), "bad/.kbsyncignore:2") {
		t.Errorf("got %q, %v", keys, errs)
	}
	if _, err := NewScanner(d, ScanOptions{}).Scan(t.Context(), newMemoryStore(), state.Sync{ID: 1}, ""); !endsListing(err) {
		t.Errorf("the scan ended with %v", err)
	}
	// An ignore file that is a link out of the root is an error.
	if err := os.Remove(filepath.Join(dir, "bad", ".kbsyncignore")); err != nil {
		t.Fatal(err)
	}
	link(t, "/etc/passwd", filepath.Join(dir, "bad", ".kbsyncignore"))
	if _, errs := listing(t, d, ""); len(errs) != 1 {
		t.Errorf("got %v", errs)
	}
}

func TestExplain(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.md", "drafts/b.md", "sub/c.md", "sub/d.md", ".env.md", ".git/config.json", "x.go", "kbsync.db", "sub/deep/e.md")
	write(t, filepath.Join(dir, "empty.md"), "")
	write(t, filepath.Join(dir, "sub", ".kbsyncignore"), "# not yet\n\nd.md\ndeep/\n")
	d := NewDirectory(dir, DirectoryOptions{Filter: filter(t, FilterOptions{Rules: rules(t, "\n+ sub/*.md\n"), Exclude: []string{"drafts/**"}, Own: []string{"kbsync.db"}})})
	for key, want := range map[string]string{
		"a.md":             "taken: it is of a default document type",
		"sub/c.md":         "taken: an include matches it (filters.txt:2: sub/*.md)",
		"sub/d.md":         "left out: an ignore file leaves it out (sub/.kbsyncignore:3: d.md)",
		"sub/deep/e.md":    "left out: an ignore file leaves out its directory (sub/.kbsyncignore:4: deep/)",
		"drafts/b.md":      "left out: an exclude matches it (exclude: drafts/**)",
		".env.md":          "left out: the default exclusion of secrets (default: .env*)",
		".git/config.json": "left out: the default exclusion of version control (default: .git)",
		"x.go":             "left out: it is not of a default document type, and there is no include",
		"empty.md":         "skipped: empty",
		"kbsync.db":        "left out: it is one of kbsync's own files",
		"none.md":          "left out: there is no such file",
		"none/none.md":     "left out: there is no such file",
		"a.md/b.md":        `left out: "a.md" is a file, not a directory`,
		"sub":              "left out: it is a directory",
		"../x.md":          "left out: it is not a path below the root",
		"":                 "left out: it is not a path below the root",
	} {
		x, err := d.Explain(t.Context(), key)
		if err != nil || x.String() != want {
			t.Errorf("%q: got %q, %v\nwant %q", key, x, err, want)
		}
		// The explanation agrees with the listing.
		keys, _ := listing(t, d, "")
		if x.Listed != slices.Contains(keys, key) {
			t.Errorf("%q: explained as %v, listed %q", key, x, keys)
		}
	}
}

// OwnKeys finds the state inside the root by any path that leads to it.
func TestOwnKeysAreFoundByAnyPath(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "root/sub/", "root/real.db", "other/")
	link(t, "root", filepath.Join(dir, "link"))
	link(t, filepath.Join("..", "root", "real.db"), filepath.Join(dir, "other", "state"))
	root := filepath.Join(dir, "root")
	got := OwnKeys(filepath.Join(dir, "link"), filepath.Join(root, "kbsync.db"), filepath.Join(dir, "link", "sub", "kbsync.yaml"),
		filepath.Join(dir, "other", "x"), filepath.Join(root, "sub", "..", "y"), filepath.Join(root, "..z"), root, dir,
		filepath.Join(dir, "other", "state"))
	if want := []string{"kbsync.db", "sub/kbsync.yaml", "y", "..z", "real.db"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
