package emulator

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// ids makes the ids of one request.
type ids struct {
	*rand.Rand
	now time.Time
}

// newIDs returns random ids, or with a seed ids that follow from the seed and the
// number of conversations and messages. The caller holds e.mu.
func (e *Emulator) newIDs() ids {
	if e.seed == 0 {
		return ids{rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), e.now()}
	}
	random := rand.New(rand.NewPCG(e.seed, e.issued))
	return ids{random, time.Unix(1_700_000_000+random.Int64N(1e8), random.Int64N(1e9))}
}

// naive formats a time in the API's usual form, without a zone.
func naive(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000000") }

// conversation returns the key of a conversation: 32 hex digits and a Unix time.
func (i ids) conversation() string {
	return fmt.Sprintf("%016x%016x%010d", i.Uint64(), i.Uint64(), max(0, i.now.Unix())%1e10)
}

// message returns the id of a message: 32 characters that include a time of day.
func (i ids) message() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	at := i.now.UTC()
	return i.text(letters, 12) + at.Format("150405") + at.Format(".000000")[1:] + i.text(letters, 8)
}

// contact returns the id of a contact: eight digits.
func (i ids) contact() string { return i.text("0123456789", 8) }

func (i ids) text(alphabet string, n int) string {
	b := make([]byte, n)
	for at := range b {
		b[at] = alphabet[i.IntN(len(alphabet))]
	}
	return string(b)
}
