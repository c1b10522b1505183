package config

import (
	"errors"
	"path/filepath"
	"strings"
)

// arguments selects the syncs that the arguments name, and adds a sync for
// each root that no sync has.
func (b *builder) arguments() {
	configured := len(b.config.Syncs)
	selected := map[string]bool{}
	for _, arg := range b.in.Args {
		b.argument(arg, configured, selected)
	}
	for _, s := range b.config.Syncs {
		if len(b.in.Args) == 0 || selected[s.Name] {
			b.config.Selected = append(b.config.Selected, s.Name)
		}
	}
}

// argument adds the syncs of one argument to selected. The first configured
// syncs are those of the file.
func (b *builder) argument(arg string, configured int, selected map[string]bool) {
	if _, ok := b.config.Sync(arg); ok {
		selected[arg] = true
		return
	}
	at := place{name: "argument"}
	if configured > 0 && !looksLikeRoot(arg) {
		names := make([]string, configured)
		for i, s := range b.config.Syncs[:configured] {
			names[i] = s.Name
		}
		b.fail(at, "%s is not the name of a sync; %s (write %s for a directory of that name)",
			show(arg), suggest(arg, names, "the names are "+strings.Join(names, ", ")), show("./"+arg))
		return
	}
	root, err := parsePlace(arg, b.in.Dir, bucketSchemes...)
	if arg == "" {
		err = errors.New("is empty; write the name of a sync, or a directory")
	}
	if err != nil {
		b.fail(at, "%s %v", show(arg), err)
		return
	}
	known := false
	for _, s := range b.config.Syncs {
		if s.Root == root {
			known = true
			selected[s.Name] = true
		}
	}
	if known {
		return
	}
	sync := b.base // with the overrides
	sync.Name, sync.Root = AdHocName(root), root
	b.config.Syncs = append(b.config.Syncs, sync)
	selected[sync.Name] = true
}

// looksLikeRoot reports whether an argument is a path or a URL rather than the
// name of a sync.
func looksLikeRoot(arg string) bool {
	return arg == "." || arg == ".." || strings.ContainsAny(arg, `/\`) || filepath.IsAbs(arg) || filepath.VolumeName(arg) != ""
}
