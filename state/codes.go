package state

// What the tables hold. The partial indexes spell these numbers out, and so do the queries that need them.
const (
	docPending = 0
	docClaimed = 1
	docRefused = 2
	docSettled = 3
	docSkipped = 4
	docRemoved = 5

	contentOpen      = 0
	contentReserved  = 1
	contentUncertain = 2
	contentTraining  = 3
	contentStuck     = 4
	contentCompleted = 5
	contentFailed    = 6

	batchOpen      = 0
	batchSealed    = 1
	batchAnswered  = 2
	batchRefused   = 3
	batchAbandoned = 4
	batchUncertain = 5
)

// documentState is the state of a document d whose content, if it is settled, is c.
const documentState = `CASE d.state WHEN 0 THEN 'pending' WHEN 1 THEN 'uploading' WHEN 2 THEN 'failed' WHEN 4 THEN 'skipped' WHEN 5 THEN 'removed'
	ELSE CASE c.state WHEN 0 THEN 'pending' WHEN 1 THEN 'uploading' WHEN 2 THEN 'uncertain' WHEN 3 THEN 'training' WHEN 4 THEN 'stuck' WHEN 5 THEN 'completed' ELSE 'failed' END END`
