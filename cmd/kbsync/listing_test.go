package main

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzListing reads any bytes as a listing of sources. A source of a listing has an id, and a mistake is named in one line.
func FuzzListing(f *testing.F) {
	for _, seed := range []string{
		"", "1\n2\n", "id,key,name,sha256,standing\n7,a.md,a.md,,live\n", "ID;Key\r\n7;\"a;b\"\r\n", "id\tname\n-3\ta\n", "\xef\xbb\xbfid\n1\n", "a,b\n1,2\n", "id\n\"",
		`[{"id": 1, "key": "a.md"}, {"id": "2", "sha256": "` + strings.Repeat("ab", 32) + `"}]`, `{"id": 1}{"id": -2, "standing": "gone"}`, "[null]", "{", "[1]", `[{"id": {}}]`, " \n[",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sources, err := parseListing(bytes.NewReader(data))
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("more than one line: %q", err)
		}
		for _, s := range sources {
			if s.ID == 0 {
				t.Errorf("%+v has no id", s)
			}
		}
	})
}
