package state

import (
	"strconv"
	"strings"
	"sync"
)

// The numbers that the tables hold. Queries name them: {doc.pending} stands for docPending, and so on (see texts).
// The partial indexes in migrations repeat the numbers; SQLite uses such an index only if a query has its condition.
const (
	docPending = 0 // waits for its upload
	docClaimed = 1 // a process works on it
	docRefused = 2 // failed before its content was reserved
	docLinked  = 3 // linked to a content, whose state is then the document's
	docSkipped = 4 // on the root, but not uploaded
	docRemoved = 5 // gone from the root

	contentOpen      = 0 // free to be sent
	contentReserved  = 1 // in a sealed batch
	contentUncertain = 2 // in a sealed batch that has no answer
	contentTraining  = 3
	contentStuck     = 4
	contentCompleted = 5
	contentFailed    = 6

	batchOpen      = 0
	batchSealed    = 1
	batchAnswered  = 2
	batchRefused   = 3
	batchAbandoned = 4 // ended before it was sealed
	batchUncertain = 5
)

// texts are the queries of a database, with the names in braces replaced: by the numbers that the tables hold, and by the
// words of that database. A database refuses a text with an unknown name.
type texts struct {
	names *strings.Replacer
	known *sync.Map // query -> text
}

// newTexts takes the names and the words of the database.
func newTexts(own ...string) texts {
	return texts{names: strings.NewReplacer(append(codeNames(), own...)...), known: &sync.Map{}}
}

func (x *texts) of(query string) string {
	if text, ok := x.known.Load(query); ok {
		return text.(string)
	}
	text := x.names.Replace(query)
	x.known.Store(query, text)
	return text
}

// codeNames are the names in queries and the numbers that the tables hold.
func codeNames() []string {
	return []string{
		"{doc.pending}", strconv.Itoa(docPending),
		"{doc.claimed}", strconv.Itoa(docClaimed),
		"{doc.refused}", strconv.Itoa(docRefused),
		"{doc.linked}", strconv.Itoa(docLinked),
		"{doc.skipped}", strconv.Itoa(docSkipped),
		"{doc.removed}", strconv.Itoa(docRemoved),

		"{content.open}", strconv.Itoa(contentOpen),
		"{content.reserved}", strconv.Itoa(contentReserved),
		"{content.uncertain}", strconv.Itoa(contentUncertain),
		"{content.training}", strconv.Itoa(contentTraining),
		"{content.stuck}", strconv.Itoa(contentStuck),
		"{content.completed}", strconv.Itoa(contentCompleted),
		"{content.failed}", strconv.Itoa(contentFailed),

		"{batch.open}", strconv.Itoa(batchOpen),
		"{batch.sealed}", strconv.Itoa(batchSealed),
		"{batch.answered}", strconv.Itoa(batchAnswered),
		"{batch.refused}", strconv.Itoa(batchRefused),
		"{batch.abandoned}", strconv.Itoa(batchAbandoned),
		"{batch.uncertain}", strconv.Itoa(batchUncertain),

		"{outcome.training}", strconv.Itoa(int(InTraining)),
		"{outcome.completed}", strconv.Itoa(int(TrainingCompleted)),
		"{outcome.failed}", strconv.Itoa(int(TrainingFailed)),
		"{outcome.stuck}", strconv.Itoa(int(TrainingStuck)),

		"{hash.ahead}", strconv.Itoa(HashAhead),
		"{max.named}", strconv.Itoa(MaxNamed),
	}
}

// contentStateName is the state of a document that is linked to the content c.
const contentStateName = `CASE c.state
		WHEN {content.open} THEN 'pending'
		WHEN {content.reserved} THEN 'uploading'
		WHEN {content.uncertain} THEN 'uncertain'
		WHEN {content.training} THEN 'training'
		WHEN {content.stuck} THEN 'stuck'
		WHEN {content.completed} THEN 'completed'
		ELSE 'failed'
	END`

// documentStateName is the state of a document d that, if it is linked, has the content c.
const documentStateName = `CASE d.state
		WHEN {doc.pending} THEN 'pending'
		WHEN {doc.claimed} THEN 'uploading'
		WHEN {doc.refused} THEN 'failed'
		WHEN {doc.skipped} THEN 'skipped'
		WHEN {doc.removed} THEN 'removed'
		ELSE ` + contentStateName + `
	END`

// HashAhead is the size in bytes up to which every document is hashed before it is sent. SizeTaken knows larger sizes only.
const HashAhead = 1 << 20
