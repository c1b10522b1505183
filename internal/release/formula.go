package main

import (
	_ "embed"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed kbsync.rb.tmpl
var formula string

// writeFormula writes a Homebrew formula of the archives for macOS and Linux, if all four are there.
func (r *release) writeFormula(programs []program) error {
	sums := map[string]string{}
	for _, p := range programs {
		if p.os == "windows" {
			continue
		}
		sum, err := checksum(filepath.Join(r.out, r.name(p, ".tar.gz")))
		if err != nil {
			return err
		}
		sums[p.os+"_"+p.arch] = sum
	}
	if len(sums) < 4 {
		return nil
	}
	t, err := template.New("formula").Option("missingkey=error").Parse(formula)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(r.out, "kbsync.rb"))
	if err != nil {
		return err
	}
	return errors.Join(t.Execute(f, map[string]any{
		"Tag": r.version, "Version": strings.TrimPrefix(r.version, "v"), "Sums": sums,
	}), f.Close())
}
