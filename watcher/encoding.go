package watcher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A RuleFileError reports a rule file that was not understood: its encoding, or that it is no readable file. It ends a listing,
// because the documents that the file was meant to leave out are not known.
type RuleFileError struct {
	Path string // the path of the file, or its key below the root
	Err  error
}

func (e *RuleFileError) Error() string {
	return fmt.Sprintf("the rule file %s was not understood, so that nothing is uploaded: %v", e.Path, e.Err)
}

func (e *RuleFileError) Unwrap() error { return e.Err }

// decodeRules returns the lines of a rule file, without their ends. Editors write UTF-8 and UTF-16 of both orders, with and without
// a byte order mark, and lines that end in LF, CRLF or CR. UTF-16 without a mark is recognized by its zero bytes.
func decodeRules(data []byte) ([]string, error) {
	text, err := decodeText(data)
	if err != nil {
		return nil, err
	}
	if strings.ContainsRune(text, 0) {
		return nil, errors.New("it has a NUL character; save it as text in UTF-8")
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	return strings.Split(text, "\n"), nil
}

func decodeText(data []byte) (string, error) {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		data = data[3:]
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		return decodeUTF16(data[2:], binary.LittleEndian)
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		return decodeUTF16(data[2:], binary.BigEndian)
	case bytes.IndexByte(data, 0) >= 0:
		// Every second byte of ASCII text in UTF-16 is zero. Where few are, it is not certain that it is text.
		even, odd := 0, 0
		for i, c := range data {
			if c == 0 && i%2 == 0 {
				even++
			} else if c == 0 {
				odd++
			}
		}
		certain := len(data)%2 == 0 && 4*(even+odd) >= len(data)
		switch {
		case certain && even == 0:
			return decodeUTF16(data, binary.LittleEndian)
		case certain && odd == 0:
			return decodeUTF16(data, binary.BigEndian)
		}
	}
	if !utf8.Valid(data) {
		return "", errors.New("it is neither UTF-8 nor UTF-16; save it in UTF-8")
	}
	return string(data), nil
}

func decodeUTF16(data []byte, order binary.ByteOrder) (string, error) {
	if len(data)%2 != 0 {
		return "", errors.New("it is cut off: UTF-16 has an even number of bytes; save it in UTF-8")
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	text := string(utf16.Decode(units))
	if strings.ContainsRune(text, utf8.RuneError) {
		return "", errors.New("it is not valid UTF-16; save it in UTF-8")
	}
	return text, nil
}
