package main

import (
	"cmp"
	"debug/buildinfo"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// licensesFile is the result with the licences of all modules in the programs. Most of them must go along with each copy.
const licensesFile = "THIRD-PARTY-LICENSES"

// allowedLicenses are the licences that a module of kbsync may have: they ask for their text in each copy, and no more.
func allowedLicenses() []string {
	return []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-2-Clause-Views", "0BSD", "ISC", "MIT", "Unlicense", "CC0-1.0", "MPL-2.0"}
}

// A licensed is a module with its licences.
type licensed struct {
	path, version string
	ids           []string // of SPDX
	texts         []string // of the licences and notices
}

// licenses returns the licences of the modules in programs, by path. It fails for a module with no licence, with one that is not allowed,
// and with one that is not recognized.
func (r *release) licenses(programs []program) (map[string]licensed, error) {
	modules := map[string]string{} // versions by path
	for _, p := range programs {
		info, err := buildinfo.ReadFile(p.file)
		if err != nil {
			return nil, err
		}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			modules[m.Path] = m.Version
		}
	}
	dirs, err := r.moduleDirs(slices.Sorted(maps.Keys(modules)))
	if err != nil {
		return nil, err
	}
	dirs["std"], modules["std"] = runtime.GOROOT(), runtime.Version()
	all := map[string]licensed{}
	var faults []error
	for path, dir := range dirs {
		l, err := readLicenses(dir)
		if err != nil {
			faults = append(faults, fmt.Errorf("module %s: %w", path, err))
		}
		l.path, l.version = path, modules[path]
		all[path] = l
	}
	// The plots of the page have a library that is no module.
	plots, err := os.ReadFile(filepath.Join(r.source, "internal/statuspage/assets/uPlot.LICENSE"))
	if err != nil {
		return nil, err
	}
	ids, err := identify(string(plots))
	all["uPlot"] = licensed{"uPlot", "", ids, []string{string(plots)}}
	return all, errors.Join(append(faults, err)...)
}

// moduleDirs returns the directories of modules in the cache of the go command.
func (r *release) moduleDirs(paths []string) (map[string]string, error) {
	list := exec.Command("go", append([]string{"list", "-m", "-f", "{{.Path}} {{.Dir}}"}, paths...)...)
	list.Dir, list.Stderr = r.source, os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	dirs := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		if dir == "" {
			return nil, fmt.Errorf("module %s is not in the cache: run go mod download", path)
		}
		dirs[path] = dir
	}
	return dirs, nil
}

// readLicenses reads the licences and notices in the directory of a module.
func readLicenses(dir string) (l licensed, err error) {
	name := regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying|notice)s?([.-].*)?$`)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return l, err
	}
	for _, e := range entries {
		if e.IsDir() || !name.MatchString(e.Name()) || filepath.Ext(e.Name()) == ".go" || e.Name() == "LICENSE-LOGO" { // of a picture
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return l, err
		}
		l.texts = append(l.texts, string(text))
		if strings.HasPrefix(strings.ToUpper(e.Name()), "NOTICE") {
			continue
		}
		ids, err := identify(string(text))
		if err != nil {
			return l, fmt.Errorf("%s: %w", e.Name(), err)
		}
		for _, id := range ids {
			if !slices.Contains(l.ids, id) {
				l.ids = append(l.ids, id)
			}
		}
	}
	if len(l.ids) == 0 {
		return l, errors.New("it has no licence")
	}
	return l, nil
}

// identify returns the licences in a text.
func identify(text string) (ids []string, err error) {
	if strings.Contains(text, "SQLite") && strings.Contains(text, "public domain dedications on file") {
		return []string{"blessing"}, nil // SPDX calls the public domain of SQLite so
	}
	for _, m := range licensecheck.Scan([]byte(text)).Match {
		if !slices.Contains(allowedLicenses(), m.ID) {
			return nil, fmt.Errorf("the licence %s is not allowed in kbsync", m.ID)
		}
		ids = append(ids, m.ID)
	}
	if len(ids) == 0 {
		return nil, errors.New("the licence is not known")
	}
	return ids, nil
}

// writeLicenses writes the licences into the stage, each text once.
func (r *release) writeLicenses(all map[string]licensed) error {
	users := map[string][]string{} // by text
	for _, path := range slices.Sorted(maps.Keys(all)) {
		l := all[path]
		for _, t := range l.texts {
			users[strings.TrimSpace(t)] = append(users[strings.TrimSpace(t)], strings.TrimSpace(l.path+" "+l.version)+" ("+strings.Join(l.ids, ", ")+")")
		}
	}
	texts := slices.SortedFunc(maps.Keys(users), func(a, b string) int { return cmp.Compare(users[a][0]+a, users[b][0]+b) })
	var out strings.Builder
	out.WriteString("kbsync contains the following modules, with these licences and notices.\n")
	for _, t := range texts {
		fmt.Fprintf(&out, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 100), strings.Join(users[t], "\n"), t)
	}
	return os.WriteFile(filepath.Join(r.stage, licensesFile), []byte(out.String()), 0o644)
}
