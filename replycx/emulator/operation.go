package emulator

// Operation names an operation, in fault scripts and counts.
type Operation string

// The operations.
const (
	OpUpload  Operation = "upload"
	OpStatus  Operation = "status"
	OpCreate  Operation = "create"
	OpMessage Operation = "message"
	// OpClose and OpAssign share a path and differ in the body's "event".
	OpClose     Operation = "close"
	OpAssign    Operation = "assign"
	OpVariables Operation = "variables"
	OpWebhook   Operation = "webhook"
	OpBots      Operation = "bots"
)
