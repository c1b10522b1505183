package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
)

// check looks at the settings that are not a sync's own.
func (b *builder) check() {
	c := b.config
	if c.State == "" {
		if _, given := b.places["state"]; !given {
			state, err := defaultState(c.configPath, b.vars, runtime.GOOS)
			if err != nil {
				b.fail(place{name: "--state"}, "%v", err)
			}
			c.State = state
		}
	}
	if c.Poll.Max > 0 && c.Poll.Min > c.Poll.Max { // zero could not be read
		at, given := b.places["poll.min"]
		if !given {
			at = b.places["poll.max"]
		}
		b.fail(at, "poll.min (%v) is longer than poll.max (%v); write a range, such as 2s to 60s", c.Poll.Min, c.Poll.Max)
	}
	if strings.HasPrefix(c.API.URL, "http:") && !c.API.AllowInsecure && !c.API.Local() {
		b.fail(b.places["api.url"], "%s would send the token unencrypted; write https://, or allow it with allow_insecure: true or --allow-insecure where nobody else can listen",
			show(c.API.URL))
	}
	file, command := b.places["api.token_file"], b.places["api.token_command"]
	switch {
	case c.API.TokenFile == "" || len(c.API.TokenCommand) == 0:
	case file.line == 0: // from a flag or the environment, so it wins
		c.API.TokenCommand = nil
	default:
		b.fail(command, "there is a token_file as well; keep one of them")
	}
}

func loopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// defaultState gives the state's place where none was given: beside the config
// file, or in the user's directory for such files.
func defaultState(configPath string, vars map[string]string, goos string) (string, error) {
	if configPath != "" {
		return filepath.Join(filepath.Dir(configPath), "kbsync.db"), nil
	}
	base := vars["XDG_STATE_HOME"]
	if !filepath.IsAbs(base) { // so the XDG specification says
		base = ""
	}
	home := vars["HOME"]
	switch {
	case base != "":
	case goos == "windows":
		base = vars["LOCALAPPDATA"]
	case home == "":
	case goos == "darwin":
		base = filepath.Join(home, "Library", "Application Support")
	default:
		base = filepath.Join(home, ".local", "state")
	}
	if !filepath.IsAbs(base) {
		return "", errors.New("there is no home directory to keep the state in; write --state PATH, or set KBSYNC_STATE")
	}
	return filepath.Join(base, "kbsync", "kbsync.db"), nil
}

// checkSync looks at the sync at index i, alone and beside those before it.
func (b *builder) checkSync(i int) {
	s := &b.config.Syncs[i]
	name := fmt.Sprintf("syncs[%d]", i)
	at, inFile := b.places[name]
	given := func(key string) bool {
		_, is := b.places[key]
		return is
	}
	where := func(key string) place {
		return cmp.Or(b.places[name+"."+key], at, place{name: "argument"})
	}
	if inFile {
		missing := func(key, text string) {
			b.fail(cmp.Or(b.open[name+"."+key], place{name + "." + key, at.line, at.col}), "is missing; write %s", text)
		}
		if !given(name + ".name") {
			missing("name", "a name for the sync, such as name: handbook")
		}
		if !given(name + ".root") {
			missing("root", "the directory to watch, such as root: ./docs")
		}
		if !given(name+".knowledge_base") && !given("defaults.knowledge_base") && !given("syncs[].knowledge_base") {
			missing("knowledge_base", "the id of the knowledge base, such as knowledge_base: 876, or use --knowledge-base")
		}
	} else if !given("defaults.knowledge_base") && !given("syncs[].knowledge_base") {
		b.fail(place{name: "--knowledge-base"}, "is missing for %s; write the id of the knowledge base, such as --knowledge-base 876", show(s.Root.String()))
	}
	if s.Notifications != "" && s.Root.Dir != "" {
		b.fail(where("notifications"), "is for buckets; take it out, a directory is watched without it")
	}
	if s.Root.Dir != "" && b.config.State != "" {
		switch {
		case samePath(s.Root.Dir, b.config.State):
			b.fail(where("root"), "%s is the state's own file; write the directory with the documents", show(s.Root.Dir))
		case below(s.Root.Dir, b.config.State):
			b.fail(where("root"), "%s lies below the state's file %s; write the directory with the documents, or another state", show(s.Root.Dir), show(b.config.State))
		}
	}
	for j := range i {
		other := &b.config.Syncs[j]
		first := fmt.Sprintf("syncs[%d]", j)
		if p := b.places[first]; p.line > 0 {
			first += fmt.Sprintf(" in line %d", p.line)
		}
		if s.Name != "" && strings.EqualFold(s.Name, other.Name) {
			b.fail(where("name"), "%s is the name of %s already; write another one", show(s.Name), first)
		}
		if s.KnowledgeBase != other.KnowledgeBase || s.Root == (Root{}) || other.Root == (Root{}) {
			continue
		}
		switch {
		case s.Root == other.Root || s.Root.Dir != "" && samePath(s.Root.Dir, other.Root.Dir):
			b.warn(where("root"), "%s has the root and the knowledge base of %s; what both select is uploaded once", show(s.Name), first)
		case s.Root.Dir != "" && other.Root.Dir != "" && (below(s.Root.Dir, other.Root.Dir) || below(other.Root.Dir, s.Root.Dir)):
			b.warn(where("root"), "%s and %s have overlapping roots and one knowledge base; what both select is uploaded once", show(s.Name), first)
		}
	}
}

// samePath and below compare clean paths as they are written: this package
// does not look at the disk, so links are for those that open the root. A path
// is below itself.
func samePath(a, b string) bool {
	rel, err := filepath.Rel(a, b)
	return err == nil && rel == "."
}

func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
