package engine

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// A form is an office document of the handbook. Programs write new metadata into it whenever a person saves it.
type form struct {
	text    string
	content []byte // as it is on the root
	// linked is the content that was uploaded for it, with that text.
	linked     []byte
	linkedText string
	saves      int
}

// otherKeys returns the keys of the documents that are no forms.
func (y *year) otherKeys() []string {
	return slices.DeleteFunc(y.keys(), func(key string) bool { return y.forms[key] != nil })
}

// edit gives a form another text.
func (y *year) edit(key, text string) {
	y.Helper()
	if y.forms[key] == nil {
		y.forms[key] = &form{}
	}
	y.forms[key].text = text
	y.save(key)
}

// save writes a form with new metadata.
func (y *year) save(key string) {
	y.Helper()
	f := y.forms[key]
	f.saves++
	f.content = y.office(f.text, fmt.Sprintf("%s, revision %d", key, f.saves))
	y.check(os.MkdirAll(filepath.Dir(y.path(key)), 0o755))
	y.check(os.WriteFile(y.path(key), f.content, 0o644))
}

// saveAgain saves a form without a change. Sometimes it is an old save that comes back.
func (y *year) saveAgain() {
	y.Helper()
	keys := slices.Sorted(maps.Keys(y.forms))
	if len(keys) == 0 {
		return
	}
	key := keys[y.rand.IntN(len(keys))]
	if f := y.forms[key]; y.rand.IntN(5) == 0 && f.linked != nil {
		f.content, f.text = f.linked, f.linkedText
		y.check(os.WriteFile(y.path(key), f.content, 0o644))
		return
	}
	y.save(key)
}

func (y *year) saveAllAgain() {
	y.Helper()
	if len(y.forms) < 3 {
		y.Fatalf("only %d forms", len(y.forms))
	}
	for key := range y.forms {
		y.save(key)
	}
}

// linkForms computes the contents that the forms will have after a pass that uploads the marked keys whatever they contain.
func (y *year) linkForms(marked []string) {
	for key, f := range y.forms {
		if f.linked == nil || f.linkedText != f.text || slices.Contains(marked, key) {
			f.linked, f.linkedText = f.content, f.text
		}
	}
}

// office makes a Word document.
func (y *year) office(text, title string) []byte {
	y.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range [][2]string{
		{"[Content_Types].xml", `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">` +
			`<Default Extension="xml" ContentType="application/xml"/>` +
			`<Override PartName="/docProps/core.xml" ContentType="application/vnd.openxmlformats-package.core-properties+xml"/></Types>`},
		{"_rels/.rels", `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">` +
			`<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>` +
			`<Relationship Id="rId2" Type="http://schemas.openxmlformats.org/package/2006/relationships/metadata/core-properties" Target="docProps/core.xml"/></Relationships>`},
		{"word/document.xml", `<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">` + text + `</w:document>`},
		{"docProps/core.xml", `<title>` + title + `</title>`},
	} {
		f, err := w.Create(m[0])
		y.check(err)
		_, err = io.WriteString(f, m[1])
		y.check(err)
	}
	y.check(w.Close())
	return b.Bytes()
}
