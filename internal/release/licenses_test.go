package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A module without a licence, with an unknown one, or with one that asks for more than its text is refused.
func TestLicensesOfModules(t *testing.T) {
	t.Parallel()
	const isc = "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted, " +
		"provided that the above copyright notice and this permission notice appear in all copies.\n\nTHE SOFTWARE IS PROVIDED \"AS IS\" AND THE " +
		"AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT " +
		"SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF " +
		"USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE " +
		"OR PERFORMANCE OF THIS SOFTWARE.\n"
	const gpl = "This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public License as " +
		"published by the Free Software Foundation, either version 3 of the License, or (at your option) any later version.\n"
	for name, test := range map[string]struct {
		files map[string]string
		fault string
		texts int
	}{
		"known":      {map[string]string{"LICENSE": isc, "NOTICE": "of a project", "license.go": gpl}, "", 2},
		"none":       {map[string]string{"README": isc}, "no licence", 0},
		"not known":  {map[string]string{"COPYING": "Do what is right."}, "not known", 1},
		"not wanted": {map[string]string{"LICENSE.txt": isc, "LICENSE.gpl": gpl}, "not allowed in kbsync", 1},
	} {
		dir := t.TempDir()
		for file, text := range test.files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l, err := readLicenses(dir)
		if test.fault == "" && (err != nil || strings.Join(l.ids, " ") != "ISC" || len(l.texts) != test.texts) {
			t.Errorf("%s: %v, %d texts, %v", name, l.ids, len(l.texts), err)
		}
		if test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)) {
			t.Errorf("%s: %v, want an error with %q", name, err, test.fault)
		}
	}
}
