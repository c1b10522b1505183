//go:build !nocloud

package watcher

import (
	"strings"
	"testing"
)

func TestOpenBucketRefuses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"s3://key:secret@bucket":                            "credentials",
		"s3://bucket?endpoint=https://key:secret@host":      "credentials",
		"s3://bucket/docs":                                  "?prefix=docs%2F",
		"s3://bucket?prefix=a&prefix=b":                     "twice",
		"s3://bucket?key=a.md":                              "by an include",
		"s3://bucket#x":                                     "%23",
		"s3://bucket?a=%zz":                                 "cannot be read",
		"s3://?region=x":                                    "names no bucket",
		"mem://?colour=blue":                                "colour",
		"ftp://bucket":                                      "s3, gs or azblob",
		"s3://bucket?region=eu-west-1&colour=blue":          "colour",
		"s3://bucket?region=eu-west-1&hostname_immutable=x": "hostname_immutable",
		"\x00": "not a URL",
	} {
		b, err := OpenBucket(t.Context(), address, BucketOptions{})
		if err == nil {
			t.Errorf("%q is opened: %v", address, b)
			continue
		}
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, "secret") {
			t.Errorf("%q: %s", address, text)
		}
	}
}
