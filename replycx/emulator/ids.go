package emulator

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// naive formats a time in the API's usual form, without a zone.
func naive(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000000") }

// externalKey returns a random conversation key: 32 hex digits and a Unix time.
func externalKey(t time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:]) + fmt.Sprintf("%010d", max(0, t.Unix())%1e10)
}

// key32 returns a random key in the API's form: 32 characters that include a time of
// day.
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
