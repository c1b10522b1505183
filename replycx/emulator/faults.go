package emulator

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"regexp"
	"slices"
	"time"

	"github.com/goccy/go-yaml"
)

// Faults is a fault script: rules that make the emulator fail. For each request the
// first rule that fires happens; a rule with a File is asked for each part of an
// upload instead, and only its training faults count.
//
// A script file is YAML with the names of the tags:
//
//	seed: 7
//	faults:
//	  - {operation: upload, nth: [1, 3], status: 502, at: after}
//	  - {operation: upload, probability: 0.1, reset: true, at: middle}
//	  - {operation: status, every: 5, status: 429, retry_after: "2"}
//	  - {operation: upload, file: "*.pdf", train: never}
type Faults struct {
	// Seed makes probabilities repeatable.
	Seed uint64 `yaml:"seed"`
	// Rules are asked in their order.
	Rules []Fault `yaml:"faults"`
}

// Place is where in a request's life a fault happens.
type Place string

// The places. An empty Place is Before.
const (
	// Before: nothing of the body is read, nothing accepted.
	Before Place = "before"
	// Middle: half of the body is read, nothing accepted. Only uploads have a middle;
	// for other operations it is Before.
	Middle Place = "middle"
	// Read: the body is read to its end, nothing is accepted.
	Read Place = "read"
	// After: what was asked for has been done, and the answer is lost.
	After Place = "after"
)

func (p Place) is(q Place) bool { return p == q || p == "" && q == Before }

// Fault is one rule: when it fires, and what happens then.
type Fault struct {
	// Operation is the operation it is for, all if empty.
	Operation Operation `yaml:"operation"`
	// File is a pattern (path.Match) for the names of an upload's files. With it the
	// rule is asked for each part, and only Train, TrainFor and Word have an effect.
	File string `yaml:"file"`
	// Nth fires at these requests of the operation (parts with File), from 1, counted
	// since the script was set. Every fires at each n-th, Skip lets the first n pass,
	// Probability fires by chance. All that are set must agree; without any, it always
	// fires.
	Nth         []int64 `yaml:"nth"`
	Every       int64   `yaml:"every"`
	Skip        int64   `yaml:"skip"`
	Probability float64 `yaml:"probability"`
	// Count is how often it fires at most, 0 for no limit.
	Count int64 `yaml:"count"`

	// Latency delays the request. It may go with anything else or stand alone.
	Latency time.Duration `yaml:"latency"`
	// At is the place of Status, Reset and Stall.
	At Place `yaml:"at"`
	// Status answers with this status; with Code an error of the API, without one a
	// gateway's HTML page. RetryAfter is the header's value as it is sent.
	Status     int    `yaml:"status"`
	Code       string `yaml:"code"`
	Message    string `yaml:"message"`
	RetryAfter string `yaml:"retry_after"`
	// Reset breaks the connection.
	Reset bool `yaml:"reset"`
	// Stall says nothing for so long and then breaks the connection, or goes on to
	// Status.
	Stall time.Duration `yaml:"stall"`

	// Answer spoils a good answer: "truncated", "html", "empty", "foreign" (JSON of
	// something else), "huge" (beyond what a client should read), "bomb" (the same,
	// gzipped), "bad-ids" (ids that are no numbers).
	Answer string `yaml:"answer"`
	// DropFields takes so many fields, from the last, out of an upload's answer. The
	// sources are accepted.
	DropFields int `yaml:"drop_fields"`

	// Train is "never" (stays in progress), "failed" or "completed" (whatever the
	// content is), for the sources of the upload at which it fires.
	Train string `yaml:"train"`
	// TrainFor is how long training takes.
	TrainFor time.Duration `yaml:"train_for"`
	// Word is what a status request says in place of the true status of all sources.
	Word string `yaml:"word"`
	// DropSources takes so many sources, from the last, out of a status answer.
	DropSources int `yaml:"drop_sources"`
}

// ParseFaults reads a fault script in YAML. Unknown names are errors, with their
// place.
func ParseFaults(data []byte) (*Faults, error) {
	var f Faults
	if err := yaml.UnmarshalWithOptions(data, &f, yaml.Strict()); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read fault script: %w", err)
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	return &f, nil
}

func (f *Faults) check() error {
	operations := []Operation{"", OpUpload, OpStatus, OpCreate, OpMessage, OpClose, OpAssign, OpVariables, OpWebhook, OpBots}
	for i, r := range f.Rules {
		var wrong string
		_, match := path.Match(r.File, "")
		switch {
		case !slices.Contains(operations, r.Operation):
			wrong = fmt.Sprintf("unknown operation %q", r.Operation)
		case !slices.Contains([]Place{"", Before, Middle, Read, After}, r.At):
			wrong = fmt.Sprintf("unknown place %q: before, middle, read or after", r.At)
		case !slices.Contains([]string{"", "truncated", "html", "empty", "foreign", "huge", "bomb", "bad-ids"}, r.Answer):
			wrong = fmt.Sprintf("unknown answer %q", r.Answer)
		case !slices.Contains([]string{"", "never", "failed", "completed"}, r.Train):
			wrong = fmt.Sprintf("unknown training %q: never, failed or completed", r.Train)
		case r.Probability < 0 || r.Probability > 1:
			wrong = "a probability is between 0 and 1"
		case r.Status != 0 && (r.Status < 200 || r.Status > 599):
			wrong = fmt.Sprintf("status %d is not between 200 and 599", r.Status)
		case match != nil:
			wrong = fmt.Sprintf("file pattern %q: %v", r.File, match)
		}
		if wrong != "" {
			return fmt.Errorf("fault script: rule %d: %s", i+1, wrong)
		}
	}
	return nil
}

// script is a fault script at work. Emulator.faultMu guards it.
type script struct {
	rules  []ruleState
	chance *rand.Rand
}

type ruleState struct {
	Fault
	seen, fired int64
}

// SetFaults replaces the fault script from the next request on; nil ends all faults.
func (e *Emulator) SetFaults(f *Faults) error {
	var s *script
	if f != nil {
		if err := f.check(); err != nil {
			return err
		}
		s = &script{rules: make([]ruleState, len(f.Rules)), chance: rand.New(rand.NewPCG(f.Seed, 0))}
		for i := range f.Rules {
			s.rules[i].Fault = f.Rules[i]
		}
	}
	e.faultMu.Lock()
	defer e.faultMu.Unlock()
	e.faults = s
	return nil
}

// fire returns the rule that fires for a request, or nil.
func (e *Emulator) fire(op Operation) *Fault {
	e.faultMu.Lock()
	defer e.faultMu.Unlock()
	if e.faults == nil {
		return nil
	}
	return e.faults.fire(func(f *Fault) bool { return f.File == "" && (f.Operation == "" || f.Operation == op) })
}

// firePart returns the rule that fires for a part of an upload, or nil.
func (e *Emulator) firePart(filename string) *Fault {
	e.faultMu.Lock()
	defer e.faultMu.Unlock()
	if e.faults == nil {
		return nil
	}
	return e.faults.fire(func(f *Fault) bool {
		if f.File == "" || f.Operation != "" && f.Operation != OpUpload {
			return false
		}
		ok, _ := path.Match(f.File, filename)
		return ok
	})
}

func (s *script) fire(applies func(*Fault) bool) *Fault {
	var first *Fault
	for i := range s.rules {
		r := &s.rules[i]
		if !applies(&r.Fault) {
			continue
		}
		r.seen++ // counted even when an earlier rule fires: nth is the operation's
		if first != nil {
			continue
		}
		switch {
		case r.Count > 0 && r.fired >= r.Count,
			len(r.Nth) > 0 && !slices.Contains(r.Nth, r.seen),
			r.Every > 0 && r.seen%r.Every != 0,
			r.seen <= r.Skip,
			r.Probability > 0 && s.chance.Float64() >= r.Probability:
			continue
		}
		r.fired++
		fault := r.Fault
		first = &fault
	}
	return first
}

// breaks says whether the fault puts something in the place of the answer.
func (f *Fault) breaks() bool { return f.Reset || f.Status != 0 || f.Stall > 0 }

// answer is the fault's own answer.
func (f *Fault) answer() reply {
	var a reply
	if f.Code != "" {
		a = fail(f.Status, f.Code, f.Message)
	} else {
		a = gatewayPage(f.Status, f.Message)
	}
	if f.RetryAfter != "" {
		if a.header == nil {
			a.header = make(http.Header)
		}
		a.header.Set("Retry-After", f.RetryAfter)
	}
	return a
}

// gatewayPage is an error page as a gateway before the API makes it.
func gatewayPage(status int, words string) reply {
	title := fmt.Sprintf("%d %s", status, http.StatusText(status))
	return reply{
		status: status,
		body:   fmt.Appendf(nil, "<html>\r\n<head><title>%s</title></head>\r\n<body>\r\n<center><h1>%s</h1></center>\r\n<p>%s</p>\r\n</body>\r\n</html>\r\n", title, title, words),
		header: http.Header{"Content-Type": {"text/html"}},
	}
}

// spoil changes a good answer.
func (f *Fault) spoil(a reply) (reply, error) {
	if a.status/100 != 2 {
		return a, nil
	}
	switch f.Answer {
	case "truncated":
		a.body = a.body[:len(a.body)/2]
	case "empty":
		a.body = nil
	case "html":
		a.body = []byte("<!doctype html><title>Welcome</title><p>Please sign in.")
		a.header = http.Header{"Content-Type": {"text/html"}}
	case "foreign":
		a.body = []byte(`{"hello":"this is another service","version":[1,2,3]}`)
	case "huge":
		a.body = append([]byte(`{"padding":"`), bytes.Repeat([]byte("x"), 4<<20)...)
	case "bomb":
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		zeros := make([]byte, 1<<20)
		for range 64 {
			_, _ = z.Write(zeros)
		}
		_ = z.Close()
		a.body = packed.Bytes()
		a.header = http.Header{"Content-Encoding": {"gzip"}}
	case "bad-ids":
		a.body = numericID.ReplaceAll(a.body, []byte(`"id":"x-$1"`))
	}
	return a, nil
}

var numericID = regexp.MustCompile(`"id":(\d+)`)
