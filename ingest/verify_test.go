package ingest

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/state"
)

// Two answers without a source prove nothing: the copy of a database that answers may lag behind. The third one, which comes four seconds
// after the first, counts.
func TestSourceIsGoneOnlyAfterThreeAnswersWithoutIt(t *testing.T) {
	for silent, uploads := range map[int]int{1: 1, 2: 1, 3: 2} {
		t.Run(fmt.Sprint(silent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fx := newFixture(t)
				fx.revert(1)
				there, none, asked := fx.service.sources, map[int64]state.SHA256{}, 0
				fx.service.status = func(int) error {
					if fx.service.sources = there; asked < silent {
						fx.service.sources = none
					}
					asked++
					return nil
				}
				began := time.Now()
				fx.mustRun()
				if n := fx.service.count("old0"); n != uploads {
					t.Errorf("the content was sent %d times, want %d", n, uploads)
				}
				if took := time.Since(began); silent == 3 && took < 2*recheckAfter {
					t.Errorf("the answers came within %v", took)
				}
			})
		})
	}
}
