package apicommand

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx"
)

func TestClassOfAFailure(t *testing.T) {
	t.Parallel()
	refused := func(status int, code string, fromAPI bool) error {
		return &replycx.Error{Op: "send message", StatusCode: status, Code: code, Message: "words", FromAPI: fromAPI}
	}
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	reset := &net.OpError{Op: "read", Err: errors.New("connection reset")}
	for name, test := range map[string]struct {
		err      error
		class    engine.Class // if a repetition may create a duplicate
		harmless engine.Class // if it cannot
		lost     bool
	}{
		"token":          {refused(401, "JWT_SIGNATURE_EXCEPTION", true), engine.ClassFatal, engine.ClassFatal, false},
		"account":        {refused(401, "UNAUTHORIZED", true), engine.ClassFatal, engine.ClassFatal, false},
		"feature":        {refused(401, "UNAUTHORIZED_FEATURE", true), engine.ClassFatal, engine.ClassFatal, false},
		"unknown 403":    {refused(403, "", false), engine.ClassFatal, engine.ClassFatal, false},
		"knowledge base": {refused(404, "KNOWLEDGE_BASE_NOT_FOUND", true), engine.ClassFatal, engine.ClassFatal, false},
		"redirect":       {refused(302, "", false), engine.ClassFatal, engine.ClassFatal, false},
		"conflict":       {refused(409, "", false), engine.ClassOther, engine.ClassOther, false},
		"ok false, 200":  {refused(200, "CONVERSATION_CLOSED", true), engine.ClassOther, engine.ClassOther, false},
		"too early":      {refused(425, "", false), engine.ClassTemporary, engine.ClassTemporary, false},
		"refused":        {refused(400, "CONVERSATION_CLOSED", true), engine.ClassOther, engine.ClassOther, false},
		"too large":      {refused(413, "", false), engine.ClassOther, engine.ClassOther, false},
		"too many":       {refused(429, "", false), engine.ClassTemporary, engine.ClassTemporary, false},
		"busy":           {refused(503, "BUSY", true), engine.ClassTemporary, engine.ClassTemporary, false},
		"gateway's 503":  {refused(503, "", false), engine.ClassOther, engine.ClassTemporary, true},
		"bad gateway":    {refused(502, "", false), engine.ClassOther, engine.ClassTemporary, true},
		"odd answer":     {&replycx.AnswerError{Op: "send message", StatusCode: 200, Reason: "is empty"}, engine.ClassOther, engine.ClassTemporary, true},
		"reset":          {fmt.Errorf("send message: %w", reset), engine.ClassOther, engine.ClassTemporary, true},
		"no connection":  {fmt.Errorf("send message: %w", dial), engine.ClassTemporary, engine.ClassTemporary, false},
		"unsent":         {&replycx.UnsentError{Err: reset}, engine.ClassTemporary, engine.ClassTemporary, false},
		"interrupted":    {fmt.Errorf("send message: %w", context.Canceled), engine.ClassOther, engine.ClassInterrupted, true},
		"no account":     {fmt.Errorf("list bots: %w", replycx.ErrNoAccount), engine.ClassUsage, engine.ClassUsage, false},
		"token file":     {fmt.Errorf("list bots: %w", usageError("read token_file: no such file")), engine.ClassUsage, engine.ClassUsage, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := apiFailure(test.err, "the message")
			if got := engine.Classify(err); got != test.class {
				t.Errorf("class %v, want %v: %v", got, test.class, err)
			}
			if got := strings.Contains(err.Error(), "the message may exist"); got != test.lost {
				t.Errorf("%q: warns that it may exist: %v, want %v", err, got, test.lost)
			}
			if got := engine.Classify(apiFailure(test.err, "")); got != test.harmless {
				t.Errorf("harmless: class %v, want %v", got, test.harmless)
			}
		})
	}
	if err := apiFailure(nil, "the message"); err != nil {
		t.Errorf("apiFailure(nil) = %v", err)
	}
}

func TestUploadFailureNamesTheFiles(t *testing.T) {
	t.Parallel()
	batch := []handFile{{path: "docs/a.md"}, {path: "docs/b.md"}}
	for name, test := range map[string]struct {
		err   error
		left  int
		want  string
		class engine.Class
	}{
		"a file that changed": {
			&replycx.UnsentError{Err: &replycx.PartError{Index: 1, Field: "f2", Err: replycx.ErrPartShort}}, 3,
			"docs/b.md: content is shorter than its size; nothing of this request was uploaded: \"docs/a.md\", \"docs/b.md\"\n3 more files after that: not uploaded", engine.ClassOther,
		},
		"a file that is gone": {
			&replycx.UnsentError{Err: &replycx.PartError{Index: 0, Field: "f1", Err: &fs.PathError{Op: "open", Path: "docs/a.md", Err: fs.ErrNotExist}}}, 0,
			"docs/a.md: open docs/a.md: file does not exist; nothing of this request was uploaded: \"docs/a.md\", \"docs/b.md\"", engine.ClassOther,
		},
		"an interrupt before the end": {
			&replycx.UnsentError{Err: context.Canceled}, 1,
			"interrupted; nothing of this request was uploaded: \"docs/a.md\", \"docs/b.md\"\n1 more file after that: not uploaded", engine.ClassInterrupted,
		},
		"a lost answer": {
			&replycx.AnswerError{Op: "upload sources", StatusCode: 200, Reason: "is empty"}, 0,
			"upload sources: the answer (status 200) is empty; \"docs/a.md\", \"docs/b.md\" may exist all the same: check in ReplyCX before you repeat this", engine.ClassOther,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := uploadFailure(test.err, batch, test.left)
			_, plain := errors.AsType[*PlainError](err)
			if err.Error() != test.want || engine.Classify(err) != test.class || !plain {
				t.Errorf("class %v, want %v; error\n%v\nwant\n%s", engine.Classify(err), test.class, err, test.want)
			}
		})
	}
}

func TestRequestsRespectTheLimits(t *testing.T) {
	t.Parallel()
	many := make([]handFile, 41)
	for i := range many {
		many[i].size = 1
	}
	for name, test := range map[string]struct {
		files []handFile
		want  []int
	}{
		"none":          {nil, nil},
		"one":           {many[:1], []int{1}},
		"full":          {many[:20], []int{20}},
		"many":          {many, []int{20, 20, 1}},
		"exactly":       {[]handFile{{size: bytesPerRequest - 1}, {size: 1}, {size: 1}}, []int{2, 1}},
		"large ones":    {[]handFile{{size: 1}, {size: 10 * bytesPerRequest}, {size: 1}}, []int{1, 1, 1}},
		"counted again": {[]handFile{{size: bytesPerRequest}, {size: bytesPerRequest - 1}, {size: 1}}, []int{1, 2}},
	} {
		if got := requests(test.files); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestEventIsPrintedOnOneLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	deep := strings.Repeat(`{"a":`, 10) + "1" + strings.Repeat("}", 10)
	for name, test := range map[string]struct {
		event replycx.Event
		want  string
	}{
		"created": {
			replycx.Event{Type: replycx.EventConversationCreate, ConversationKey: "k", Created: &replycx.ConversationCreated{
				Title: "Visitor - A7184", AssigneeEmail: "bot@example.com", Variables: []replycx.EventVariable{{Name: "os", Value: "Linux"}, {Name: "browser"}},
			}},
			`conversation_create  k  title="Visitor - A7184" assigned_to=bot@example.com os=Linux`,
		},
		"nested": {
			replycx.Event{Type: replycx.EventMessage, ConversationKey: "k", Payload: []byte(`{"z":null,"n":1.50,"message":{"text":"Hi there","type":"text"},"l":["a",true]}`)},
			`message              k  l=a l=true message.text="Hi there" message.type=text n=1.50`,
		},
		"variables": {
			replycx.Event{Type: replycx.EventVariables, ConversationKey: "k", Payload: []byte(`{"variables":[{"name":"company","type":"conversation","value":"ReplyCX"},{"name":"none","value":null}]}`)},
			`variables            k  company=ReplyCX none=""`,
		},
		"hostile": {
			replycx.Event{Type: "no\x1b[2Jte", ConversationKey: "k\nfake", Payload: []byte(`{"a\u202e":"x\u001b]0;y\u0007"}`)},
			`no\x1b[2Jte          k\nfake  a\u202e=x\x1b]0;y\a`,
		},
		"deep":   {replycx.Event{Type: "note", ConversationKey: "k", Payload: []byte(deep)}, `note                 k  a.a.a.a.a.a.a.a="{"a":{"a":1}}"`},
		"empty":  {replycx.Event{}, `?                    -`},
		"no map": {replycx.Event{Type: "note", Payload: []byte(`"a text"`)}, `note                 -  "a text"`},
	} {
		if got, want := eventLine(at, test.event), "05:06:07  "+test.want+"\n"; got != want {
			t.Errorf("%s:\n%swant\n%s", name, got, want)
		}
	}
	long := eventLine(at, replycx.Event{Type: "note", Payload: []byte(`{"text":"` + strings.Repeat("ü", 1000) + `"}`)})
	if !utf8.ValidString(long) || len(long) > 400 || !strings.HasSuffix(long, "ü…\n") {
		t.Errorf("a long event: %d bytes, %q", len(long), long[len(long)-20:])
	}
}
