package ingest

import (
	"slices"
	"sync"
	"time"
)

// A Result counts the work of a run.
type Result struct {
	Uploaded  int   // documents accepted by the API
	Shared    int   // documents that share the source of their content, without an upload
	Resaved   int   // documents that were saved again with only their metadata changed, and keep their source
	Requests  int   // upload requests begun
	Asked     int   // status requests, to verify left-behind contents and to probe the API
	Bytes     int64 // content bytes of accepted documents
	Failed    int   // documents refused for good
	Uncertain int   // documents whose answer was lost in this run, including those resent since
	Resent    int   // documents accepted that had been uncertain, and may exist twice

	Changed    int // documents that no longer had the listed version: another scan helps
	Vanished   int // documents that no longer existed: another scan helps
	Unreadable int // documents that could not be read: the pass is incomplete

	Blocked int // documents that are not sent because they can never train
	Warned  int // documents sent, or to be sent, although they look odd

	// Deferred is the number of the sync's documents left pending. Why is the last reason, or empty.
	Deferred int
	Why      string

	// Failures and Unread list the first hundred failed and the first hundred unreadable documents.
	Failures []Failure
	Unread   []Failure
}

// Incomplete reports whether a rerun may complete something that the run left undone.
func (r Result) Incomplete() bool {
	return r.Deferred > 0 || r.Uncertain > 0 || r.Changed > 0 || r.Unreadable > 0
}

// Progressed reports whether the run ended the work on a document.
func (r Result) Progressed() bool { return r.Uploaded+r.Shared+r.Resaved+r.Failed > 0 }

// A Failure is a document and the reason of its failure.
type Failure struct {
	Key    string
	Code   string // of the API, or empty
	Reason string
}

// maxListed bounds the lists of a Result.
const maxListed = 100

func appendFailure(list []Failure, f Failure) []Failure {
	if len(list) < maxListed {
		list = append(list, f)
	}
	return list
}

// A report collects the result of a run and calls the functions of Options.Progress.
type report struct {
	progress Progress

	mu           sync.Mutex
	result       Result
	lastProgress time.Time
}

func newReport(progress Progress) *report {
	return &report{progress: progress, lastProgress: time.Now()}
}

// update changes the result.
func (r *report) update(change func(*Result)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.result)
}

func (r *report) snapshot() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.result
}

// deferred records why documents were left for later.
func (r *report) deferred(why string) { r.update(func(res *Result) { res.Why = why }) }

// done reports documents that this run has finished with. That counts as progress.
func (r *report) done(documents int, bytes int64) {
	r.progressed()
	if r.progress.Done != nil {
		r.progress.Done(documents, bytes)
	}
}

// progressed restarts the run's patience.
func (r *report) progressed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastProgress = time.Now()
}

// patienceEnds returns the time at which a run of this patience ends without further progress.
func (r *report) patienceEnds(patience time.Duration) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastProgress.Add(patience)
}

// failed adds documents that the API refused for good.
func (r *report) failed(docs []*document, o outcome) {
	r.update(func(res *Result) {
		res.Failed += len(docs)
		for _, d := range docs {
			res.Failures = appendFailure(res.Failures, Failure{Key: d.Key, Code: o.code, Reason: o.message})
		}
	})
}

// unfailed takes documents back that failed had added.
func (r *report) unfailed(docs []*document) {
	r.update(func(res *Result) {
		res.Failed -= len(docs)
		res.Failures = slices.DeleteFunc(res.Failures, func(f Failure) bool {
			return slices.ContainsFunc(docs, func(d *document) bool { return d.Key == f.Key })
		})
	})
}

// requestEnded reports the end of an upload request.
func (r *report) requestEnded(q *request, end End, statusCode int) {
	if r.progress.Request != nil {
		r.progress.Request(Request{
			End:        end,
			StatusCode: statusCode,
			Took:       q.took,
			Retry:      q.batch.resendOf != 0 || attempts(q.batch.docs) > 0,
		})
	}
}

// An End is how a batch ended.
type End uint8

// The ends of a batch.
const (
	Accepted  End = iota
	Refused       // the API created no source
	Abandoned     // it ended before it was complete
	Uncertain     // it was sent completely, and its answer was lost
)
