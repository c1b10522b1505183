package emulator

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// naive is a time as the API writes most of them: without a zone.
func naive(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000000") }

// externalKey has the form of a conversation's key: 32 hex digits and a Unix time.
func externalKey(t time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:]) + fmt.Sprintf("%010d", max(0, t.Unix())%1e10)
}

// key32 has the form of the API's keys of 32 characters, with a time of day in it.
func key32(t time.Time) string {
	random := rand.Text()
	return random[:12] + t.UTC().Format("150405.000000")[:6] + t.UTC().Format(".000000")[1:] + random[12:20]
}

func digits(n int) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	out := make([]byte, n)
	for i := range out {
		out[i] = '0' + b[i%len(b)]%10
	}
	return string(out)
}
