package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unicode"
)

// maxProblems is the number of mistakes that are told at once.
const maxProblems = 100

// tokenVariable holds the API's token. It is the client's own variable, not
// one of kbsync's, so that a token set for other programs serves as well.
const tokenVariable = "REPLYCX_TOKEN"

// Parse makes a Config of a file, the environment and flags. It reads nothing
// else. All mistakes come back together, as [Errors].
func Parse(in Input) (*Config, error) {
	b := &builder{
		in:       in,
		settings: Settings(),
		vars:     variables(in.Environ, runtime.GOOS),
		places:   map[string]place{},
		open:     map[string]place{},
		config:   &Config{Path: in.Path},
	}
	b.build()
	if len(b.problems) > 0 {
		slices.SortStableFunc(b.problems, func(x, y Problem) int {
			if (x.File == "") != (y.File == "") {
				return cmp.Compare(y.File, x.File)
			}
			return cmp.Or(cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column))
		})
		return nil, Errors(b.problems)
	}
	return b.config, nil
}

// place is where a value was given. Those outside of the file have no line.
type place struct {
	name      string
	line, col int
}

func (p place) problem(file, text string) Problem {
	if p.line == 0 {
		return Problem{Name: p.name, Text: text}
	}
	return Problem{File: file, Line: p.line, Column: p.col, Name: p.name, Text: text}
}

// value is one text and where it stands.
type value struct {
	text string
	at   place
}

// builder makes a Config, layer by layer: defaults, file, environment, flags.
type builder struct {
	in       Input
	settings []Setting
	vars     map[string]string
	base     Sync             // a sync of which nothing is said but defaults
	places   map[string]place // of what was given, by key in the file or table key
	open     map[string]place // of keys in the file without a value
	config   *Config
	problems []Problem
}

func (b *builder) fail(at place, format string, args ...any) {
	p := at.problem(b.in.Path, fmt.Sprintf(format, args...))
	// A flag is applied to every sync, but its mistake is one.
	if len(b.problems) < maxProblems && !slices.Contains(b.problems, p) {
		b.problems = append(b.problems, p)
	}
}

func (b *builder) warn(at place, format string, args ...any) {
	b.config.Warnings = append(b.config.Warnings, at.problem(b.in.Path, fmt.Sprintf(format, args...)))
}

// fileDir is the directory that paths in the file are relative to.
func (b *builder) fileDir() string {
	return filepath.Dir(absolute(b.in.Path, b.in.Dir))
}

func (b *builder) build() {
	for i := range b.settings {
		s := &b.settings[i]
		if s.Default != "" {
			b.assign(s, []value{{s.Default, place{name: s.Key}}}, b.target(s, b.config, &b.base), "")
		}
	}
	b.checkVariables()

	readable := true
	if b.in.Path != "" {
		b.config.configPath = absolute(b.in.Path, b.in.Dir)
		root := document(b.in.File, func(line, col int, name, text string) {
			b.fail(place{name, line, col}, "%s", text)
		})
		if readable = root != nil; readable {
			b.file(root)
		}
	}
	// Once onto what no sync keeps, so that mistakes are found without one.
	b.override(b.config, &b.base)
	b.check()
	if readable {
		b.arguments()
		for i := range b.config.Syncs {
			b.checkSync(i)
		}
	}
}

// target gives the pointer that a setting is stored at; nil where it belongs
// to what is not given.
func (b *builder) target(s *Setting, c *Config, sync *Sync) any {
	switch {
	case s.config != nil && c != nil:
		return s.config(c)
	case s.sync != nil && sync != nil:
		return s.sync(sync)
	}
	return nil
}

// override applies the environment and the flags.
func (b *builder) override(c *Config, sync *Sync) {
	for i := range b.settings {
		s := &b.settings[i]
		ptr := b.target(s, c, sync)
		if ptr == nil || s.Name == "" {
			continue
		}
		if text, ok := b.vars[s.Env()]; ok {
			at := place{name: s.Env()}
			b.places[s.Key] = at
			b.assign(s, splitVariable(s, text, at), ptr, b.in.Dir)
		}
		if texts := b.in.Flags[s.Name]; len(texts) > 0 {
			at := place{name: "--" + s.Name}
			b.places[s.Key] = at
			if !s.Repeatable() {
				texts = texts[len(texts)-1:]
			}
			var vals []value
			for _, t := range texts {
				vals = append(vals, value{t, at})
			}
			b.assign(s, vals, ptr, b.in.Dir)
		}
	}
}

// assign stores values, of which there is at least one, at ptr.
func (b *builder) assign(s *Setting, vals []value, ptr any, dir string) {
	if list, ok := ptr.(*[]string); ok {
		var out []string
		for _, v := range vals {
			text, err := s.element(v.text, dir)
			if err != nil {
				b.fail(v.at, "%s %v", show(v.text), err)
				continue
			}
			out = append(out, text...)
		}
		*list = out
		return
	}
	v := vals[len(vals)-1]
	if err := s.store(ptr, v.text, dir); err != nil {
		b.fail(v.at, "%s %v", show(v.text), err)
	}
}

// variables gives the environment as a map, without what is empty.
func variables(environ []string, goos string) map[string]string {
	vars := map[string]string{}
	for _, e := range environ {
		name, text, found := strings.Cut(e, "=")
		if goos == "windows" {
			name = strings.ToUpper(name)
		}
		if found && name != "" && text != "" {
			vars[name] = text
		}
	}
	return vars
}

// checkVariables finds the KBSYNC_ variables that nothing reads, and takes the
// token.
func (b *builder) checkVariables() {
	var known []string
	for _, s := range b.settings {
		if s.Name != "" {
			known = append(known, s.Env())
		}
	}
	for _, flag := range b.in.OtherFlags {
		known = append(known, envName(flag))
	}
	for _, name := range slices.Sorted(maps.Keys(b.vars)) {
		if !strings.HasPrefix(name, "KBSYNC_") || slices.Contains(known, name) || b.serviceVariable(name) {
			continue
		}
		at := place{name: name}
		switch name {
		case "KBSYNC_TOKEN", "KBSYNC_API_TOKEN", "KBSYNC_REPLYCX_TOKEN":
			b.fail(at, "is not read; the token's variable is %s", tokenVariable)
		default:
			b.fail(at, "is not a setting; %s", suggest(name, known, "take it out of the environment"))
		}
	}
	token := strings.TrimSpace(b.vars[tokenVariable])
	if strings.ContainsFunc(token, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		b.fail(place{name: tokenVariable}, "has white space in it; set the token alone, without a word before it")
		return
	}
	b.config.API.Token = NewSecret(token)
}

// serviceVariable reports whether Kubernetes made the variable: for a Service
// named kbsync-x it gives every pod KBSYNC_X_SERVICE_HOST, KBSYNC_X_PORT and
// more, which nobody here meant as a setting.
func (b *builder) serviceVariable(name string) bool {
	for _, mark := range []string{"_SERVICE_", "_PORT"} {
		service, _, found := strings.Cut(name, mark)
		if _, is := b.vars[service+"_SERVICE_HOST"]; found && is {
			return true
		}
	}
	return false
}

// splitVariable gives the values of a variable: of patterns those between
// commas and line ends, where commas in brackets and braces or behind a
// backslash do not count; of paths one a line.
func splitVariable(s *Setting, text string, at place) []value {
	if !s.Repeatable() {
		return []value{{text, at}}
	}
	depth, escaped := 0, false
	fields := strings.FieldsFunc(text, func(r rune) bool {
		was := escaped
		escaped = r == '\\' && !was
		switch {
		case r == '\n' || r == '\r':
			depth = 0
			return true
		case was || s.Kind == KindPaths:
		case r == '{' || r == '[':
			depth++
		case r == '}' || r == ']':
			depth = max(depth-1, 0)
		case r == ',':
			return depth == 0
		}
		return false
	})
	vals := []value{}
	for _, f := range fields {
		if f = strings.TrimSpace(f); f != "" {
			vals = append(vals, value{f, at})
		}
	}
	return vals
}

// file applies the file: first its defaults, then the rest.
func (b *builder) file(root *node) {
	for _, e := range root.entries {
		if e.key == "defaults" {
			b.mapping(e.value, "syncs[].", "defaults.", func(s *Setting) any {
				if s.Key == "syncs[].name" || s.Key == "syncs[].root" {
					return nil
				}
				return b.target(s, nil, &b.base)
			})
		}
	}
	b.mapping(root, "", "", func(s *Setting) any { return b.target(s, b.config, nil) })
	for _, e := range root.entries {
		if e.key != "syncs" {
			continue
		}
		at := place{"syncs", e.value.line, e.value.col}
		switch e.value.kind {
		case nullNode, brokenNode:
		case listNode:
			for i, item := range e.value.items {
				b.fileSync(item, fmt.Sprintf("syncs[%d]", i))
			}
		default:
			b.fail(at, "is not a list; begin each sync with a dash, such as - name: handbook")
		}
	}
}

// fileSync adds a sync of the file.
func (b *builder) fileSync(n *node, name string) {
	b.places[name] = place{name, n.line, n.col}
	switch n.kind {
	case brokenNode:
		return
	case mappingNode:
	default:
		b.fail(b.places[name], "%s is not a sync; write keys and values behind the dash, such as name: handbook", n.describe())
		return
	}
	sync := b.base
	b.mapping(n, "syncs[].", name+".", func(s *Setting) any { return b.target(s, nil, &sync) })
	b.override(nil, &sync)
	b.config.Syncs = append(b.config.Syncs, sync)
}

// mapping applies the entries of n. table is the beginning of their keys in
// the settings' table, shown that of their names in messages; target gives
// where a setting is stored, or nil where it must not stand.
func (b *builder) mapping(n *node, table, shown string, target func(*Setting) any) {
	name := strings.TrimSuffix(shown, ".")
	switch n.kind {
	case nullNode, brokenNode:
		return
	case mappingNode:
	default:
		keys := b.children(table)
		b.fail(place{name, n.line, n.col}, "%s is not a mapping; write keys and values into it: %s", n.describe(), strings.Join(keys, ", "))
		return
	}
	for _, e := range n.entries {
		if table == "" && (e.key == "syncs" || e.key == "defaults") {
			continue
		}
		if i := slices.IndexFunc(b.settings, func(s Setting) bool { return s.Key == table+e.key }); i >= 0 {
			s := &b.settings[i]
			ptr := target(s)
			if ptr == nil {
				b.fail(place{shown + e.key, e.line, e.col}, "belongs to one sync; write it below syncs")
				continue
			}
			if e.value.kind == nullNode { // as a key whose values are all commented out
				b.open[shown+e.key] = place{shown + e.key, e.line, e.col}
				continue
			}
			b.leaf(s, e.value, shown+e.key, ptr)
			continue
		}
		if !strings.ContainsAny(e.key, ".[") && slices.ContainsFunc(b.settings, func(s Setting) bool { return strings.HasPrefix(s.Key, table+e.key+".") }) {
			b.mapping(e.value, table+e.key+".", shown+e.key+".", target)
			continue
		}
		b.unknown(e, table, shown)
	}
}

// leaf stores the value of one setting, of which there is something.
func (b *builder) leaf(s *Setting, n *node, name string, ptr any) {
	at := place{name, n.line, n.col}
	b.places[name] = at
	_, list := ptr.(*[]string)
	switch {
	case n.kind == brokenNode:
	case n.kind == scalarNode:
		b.assign(s, []value{{n.text, at}}, ptr, b.fileDir())
	case n.kind == listNode && list:
		vals := []value{}
		for i, item := range n.items {
			at := place{fmt.Sprintf("%s[%d]", name, i), item.line, item.col}
			switch item.kind {
			case scalarNode:
				vals = append(vals, value{item.text, at})
			case brokenNode:
			default:
				b.fail(at, "%s is not a text; write %s", item.describe(), s.such())
			}
		}
		if s.Kind == KindCommand || s.Kind == KindHook {
			*ptr.(*[]string) = words(vals)
			return
		}
		b.assign(s, vals, ptr, b.fileDir())
	default:
		b.fail(at, "%s is not a single value; write %s", n.describe(), s.such())
	}
}

func words(vals []value) []string {
	out := make([]string, len(vals))
	for i, v := range vals {
		out[i] = v.text
	}
	return out
}

// describe names a node in a message.
func (n *node) describe() string {
	switch n.kind {
	case nullNode:
		return "nothing"
	case listNode:
		return "a list"
	case mappingNode:
		return "a mapping"
	}
	return show(n.text)
}

// children gives the keys that may stand below a place of the table.
func (b *builder) children(table string) []string {
	var keys []string
	if table == "" {
		keys = []string{"defaults"}
	}
	for _, s := range b.settings {
		rest, found := strings.CutPrefix(s.Key, table)
		if !found {
			continue
		}
		key, _, _ := strings.Cut(rest, ".")
		key = strings.TrimSuffix(key, "[]")
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// unknown reports a key that the table does not have, with the nearest there,
// or the place where one of that name belongs.
func (b *builder) unknown(e entry, table, shown string) {
	if len(b.problems) == maxProblems {
		return // nearest names are dear
	}
	at := place{shown + keyName(e.key), e.line, e.col}
	flat := simplify(e.key)
	if strings.HasSuffix(flat, "token") || flat == "apikey" {
		b.fail(at, "is not a setting, and a token does not belong in the file; set %s, or write api.token_file or api.token_command", tokenVariable)
		return
	}
	for _, s := range b.settings {
		if flat == "" {
			break
		}
		last := s.Key[strings.LastIndexByte(s.Key, '.')+1:]
		if flat != simplify(s.Name) && flat != simplify(last) || strings.HasPrefix(s.Key, table) && table+last == s.Key {
			continue
		}
		b.fail(at, "does not stand here; write it as %s", strings.Replace(s.Key, "syncs[].", "a sync's ", 1))
		return
	}
	keys := b.children(table)
	b.fail(at, "is not a setting; %s", suggest(e.key, keys, "the keys here are "+strings.Join(keys, ", ")))
}

// absolute joins a path to the directory that it is relative to.
func absolute(path, dir string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// arguments selects the syncs that the arguments name, and makes syncs of the
// roots among them.
func (b *builder) arguments() {
	configured := b.config.Syncs
	selected := map[string]bool{}
	for _, arg := range b.in.Args {
		if _, ok := b.config.Sync(arg); ok {
			selected[arg] = true
			continue
		}
		at := place{name: "argument"}
		if len(configured) > 0 && !looksLikeRoot(arg) {
			names := make([]string, len(configured))
			for i, s := range configured {
				names[i] = s.Name
			}
			b.fail(at, "%s is not the name of a sync; %s (a directory of that name is written %s)",
				show(arg), suggest(arg, names, "the names are "+strings.Join(names, ", ")), show("./"+arg))
			continue
		}
		root, err := parsePlace(arg, b.in.Dir, bucketSchemes...)
		if arg == "" {
			err = errors.New("is empty; write the name of a sync, or a directory")
		}
		if err != nil {
			b.fail(at, "%s %v", show(arg), err)
			continue
		}
		known := false
		for _, s := range b.config.Syncs {
			if s.Root == root {
				known = true
				selected[s.Name] = true
			}
		}
		if known {
			continue
		}
		sync := b.base // with the overrides
		sync.Name, sync.Root = AdHocName(root), root
		b.config.Syncs = append(b.config.Syncs, sync)
		selected[sync.Name] = true
	}
	for _, s := range b.config.Syncs {
		if len(b.in.Args) == 0 || selected[s.Name] {
			b.config.Selected = append(b.config.Selected, s.Name)
		}
	}
}

// looksLikeRoot tells a path or URL from the name of a sync.
func looksLikeRoot(arg string) bool {
	return arg == "." || arg == ".." || strings.ContainsAny(arg, `/\`) || filepath.IsAbs(arg) || filepath.VolumeName(arg) != ""
}
