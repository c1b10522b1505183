package preflight

import (
	"bytes"
	"strings"
	"testing"
)

// tokenAnywhere searches the whole text for each token.
func tokenAnywhere(data []byte) string {
	for _, x := range secrets {
		if hasToken(data, x.start, x.length, x.chars) {
			return x.name
		}
	}
	return ""
}

func TestTokenIsFoundAtEachPlace(t *testing.T) {
	for _, x := range secrets {
		token := x.start + strings.Repeat(x.chars, 2)[:x.length]
		if len(token) < shortestToken || strings.Trim(token, tokenChars) != "" {
			t.Errorf("%s is shorter than shortestToken, or has other characters than tokenChars", token)
		}
		for before := range 3 * shortestToken {
			for _, start := range []string{"", " ", "\n", "=", "-", "ä", "_", "x"} {
				for _, end := range []string{"", " ", "\"", "-", "_more", strings.Repeat(" and more", 5)} {
					for _, filler := range []string{" ", "word ", "-"} {
						text := []byte(strings.Repeat(filler, before) + start + token + end)
						want := tokenAnywhere(text)
						if got := tokenIn(text); got != want {
							t.Fatalf("%q: %q, want %q", text, got, want)
						}
						if start == " " && want != x.name {
							t.Fatalf("%q: %q, want %q", text, want, x.name)
						}
						if short := text[:len(text)-len(end)-1]; end == "" && tokenIn(short) != "" {
							t.Fatalf("%q: %q, want none", short, tokenIn(short))
						}
					}
				}
			}
		}
	}
}

func BenchmarkTokenIn(b *testing.B) {
	text := bytes.Repeat([]byte("A paragraph of a handbook, as people write it; see https://example.com/long-path_of-a-page.\n"), 700)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if tokenIn(text) != "" {
			b.Fatal("found a token")
		}
	}
}
