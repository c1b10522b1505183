package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
)

// maxProblems is the largest number of mistakes that Parse reports.
const maxProblems = 100

// Parse builds a Config from a file, the environment and flags. It reads
// nothing else. It reports all mistakes together, as [Errors].
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

// place is the origin of a value. Outside of the file, line is zero.
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

// value is a text and its origin.
type value struct {
	text string
	at   place
}

// builder makes a Config, layer by layer: defaults, file, environment, flags.
type builder struct {
	in       Input
	settings []Setting
	vars     map[string]string
	base     Sync             // a sync with nothing but defaults
	places   map[string]place // of given values, by key in the file or table key
	open     map[string]place // of keys in the file without a value
	config   *Config
	problems []Problem
}

func (b *builder) fail(at place, format string, args ...any) {
	p := at.problem(b.in.Path, fmt.Sprintf(format, args...))
	// A flag applies to every sync, but a mistake in it is reported once.
	if len(b.problems) < maxProblems && !slices.Contains(b.problems, p) {
		b.problems = append(b.problems, p)
	}
}

func (b *builder) warn(at place, format string, args ...any) {
	b.config.Warnings = append(b.config.Warnings, at.problem(b.in.Path, fmt.Sprintf(format, args...)))
}

// fileDir returns the base directory of relative paths in the file.
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
	b.base.MaxDelete.Always, b.base.MaxChange.Always = defaultAlways, defaultAlways
	b.checkVariables()
	b.readToken()

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
	// Overriding the base as well finds mistakes in flags when there is no sync.
	b.override(b.config, &b.base)
	b.check()
	if readable {
		b.arguments()
		for i := range b.config.Syncs {
			b.checkSync(i)
		}
	}
}

// target returns the pointer to a setting's field in c or sync. It returns nil
// if the field is in neither.
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

// assign stores at least one value at ptr.
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

// absolute joins a relative path to dir.
func absolute(path, dir string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}
