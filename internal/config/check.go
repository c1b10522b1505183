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

// check checks the settings of the process, each against the others.
func (b *builder) check() {
	c := b.config
	b.checkState()
	if c.Poll.Max > 0 && c.Poll.Min > c.Poll.Max { // zero is a mistake that is already reported
		at, given := b.places["poll.min"]
		if !given {
			at = b.places["poll.max"]
		}
		b.fail(at, "poll.min (%v) is longer than poll.max (%v); write a range, such as 350ms to 60s", c.Poll.Min, c.Poll.Max)
	}
	if strings.HasPrefix(c.API.URL, "http:") && !c.API.AllowInsecure && !c.API.Local() {
		b.fail(b.places["api.url"], "%s would send the token unencrypted; write https://, or allow it with allow_insecure: true or --allow-insecure on a network that you trust",
			show(c.API.URL))
	}
	file, command := b.places["api.token_file"], b.places["api.token_command"]
	switch {
	case c.API.TokenFile == "" || len(c.API.TokenCommand) == 0:
	case file.line == 0: // from a flag or the environment, so it wins
		c.API.TokenCommand = nil
	default:
		b.fail(command, "api.token_file is set too; keep one of them")
	}
}

// checkState completes the place of the state, and takes the password out of it.
func (b *builder) checkState() {
	c := b.config
	local, err := defaultState(c.configPath, b.vars, runtime.GOOS)
	c.LocalState = local
	c.UserDir, _ = userDir(b.vars, runtime.GOOS) // only the default state needs one
	at, given := b.places["state"]
	switch {
	case !given:
		if err != nil {
			b.fail(place{name: "--state"}, "%v", err)
		}
		c.State = local
	case !isDatabase(c.State):
		c.LocalState = c.State
	}
	c.State, c.StatePassword = splitPassword(c.State)
	if !c.StatePassword.IsZero() && at.name != envName("state") {
		b.fail(at, "the URL contains a password; remove it, and %s, or write the whole URL into %s", passwordPlaces, envName("state"))
	}
}

func loopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// defaultState returns the default path of the state: beside the config file, or
// without one in the user's state directory.
func defaultState(configPath string, vars map[string]string, goos string) (string, error) {
	if configPath != "" {
		return filepath.Join(filepath.Dir(configPath), "kbsync.db"), nil
	}
	dir, ok := userDir(vars, goos)
	if !ok {
		return "", errors.New("there is no home directory for the state; write --state PATH, or set KBSYNC_STATE")
	}
	return filepath.Join(dir, "kbsync.db"), nil
}

// userDir returns kbsync's directory in the user's state directory, if there is one.
func userDir(vars map[string]string, goos string) (string, bool) {
	base := vars["XDG_STATE_HOME"]
	if !filepath.IsAbs(base) { // the XDG specification ignores relative paths
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
		return "", false
	}
	return filepath.Join(base, "kbsync"), true
}

// syncPlaces finds the places of the settings of the sync at index i.
type syncPlaces struct {
	*builder
	name string // such as syncs[0]
}

func (p syncPlaces) given(key string) bool {
	_, is := p.places[key]
	return is
}

// of returns the place of a key, or of the whole sync.
func (p syncPlaces) of(key string) place {
	return cmp.Or(p.places[p.name+"."+key], p.places[p.name], place{name: "argument"})
}

// missing reports a key of the file that has no value.
func (p syncPlaces) missing(key, text string) {
	at := p.places[p.name]
	p.fail(cmp.Or(p.open[p.name+"."+key], place{p.name + "." + key, at.line, at.col}), "is missing; write %s", text)
}

// checkSync checks the sync at index i, alone and against the syncs before it.
func (b *builder) checkSync(i int) {
	s := &b.config.Syncs[i]
	p := syncPlaces{b, fmt.Sprintf("syncs[%d]", i)}
	p.checkComplete(s)
	if s.Notifications != "" && s.Root.Dir != "" {
		b.fail(p.of("notifications"), "is for buckets only; remove it, kbsync watches a directory without it")
	}
	if s.Root.Dir != "" && b.config.State != "" && !isDatabase(b.config.State) {
		switch {
		case samePath(s.Root.Dir, b.config.State):
			b.fail(p.of("root"), "%s is the file of the state; write the directory with the documents", show(s.Root.Dir))
		case below(s.Root.Dir, b.config.State):
			b.fail(p.of("root"), "%s is below the file of the state, %s; write the directory with the documents, or another state",
				show(s.Root.Dir), show(b.config.State))
		}
	}
	for j := range i {
		p.checkPair(s, j)
	}
}

// checkComplete reports the required keys that s does not have.
func (p syncPlaces) checkComplete(s *Sync) {
	anyBase := p.given("defaults.knowledge_base") || p.given("syncs[].knowledge_base")
	if !p.given(p.name) { // from an argument
		if !anyBase {
			p.fail(place{name: "--knowledge-base"}, "is missing for %s; write the id of the knowledge base, such as --knowledge-base 876", show(s.Root.String()))
		}
		return
	}
	if !p.given(p.name + ".name") {
		p.missing("name", "a name for the sync, such as name: handbook")
	}
	if !p.given(p.name + ".root") {
		p.missing("root", "the directory to watch, such as root: ./docs")
	}
	if !p.given(p.name+".knowledge_base") && !anyBase {
		p.missing("knowledge_base", "the id of the knowledge base, such as knowledge_base: 876, or use --knowledge-base")
	}
}

// checkPair checks a sync against the earlier sync at index j.
func (p syncPlaces) checkPair(s *Sync, j int) {
	other := &p.config.Syncs[j]
	first := fmt.Sprintf("syncs[%d]", j)
	if at := p.places[first]; at.line > 0 {
		first += fmt.Sprintf(" in line %d", at.line)
	}
	if s.Name != "" && strings.EqualFold(s.Name, other.Name) {
		p.fail(p.of("name"), "%s is already the name of %s; write another name", show(s.Name), first)
	}
	if s.KnowledgeBase != other.KnowledgeBase || s.Root == (Root{}) || other.Root == (Root{}) {
		return
	}
	a, b := s.Root.Dir, other.Root.Dir
	switch {
	case s.Root == other.Root || a != "" && samePath(a, b):
		p.warn(p.of("root"), "%s has the same root and knowledge base as %s; kbsync uploads the documents that both select once", show(s.Name), first)
	case a != "" && b != "" && (below(a, b) || below(b, a)):
		p.warn(p.of("root"), "%s and %s have overlapping roots and the same knowledge base; kbsync uploads the documents that both select once", show(s.Name), first)
	}
}

// samePath and below compare clean paths as text. This package does not read
// the disk, so it cannot resolve links. A path is below itself.
func samePath(a, b string) bool {
	rel, err := filepath.Rel(a, b)
	return err == nil && rel == "."
}

func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
