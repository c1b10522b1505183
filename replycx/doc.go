// Package replycx is a client for the public API of ReplyCX: knowledge base
// sources and their training, conversations, variables, webhooks and bots.
//
//	client, err := replycx.New(token, replycx.Options{})
//	if err != nil {
//		return err
//	}
//	result, err := client.UploadSources(ctx, 876, []replycx.Part{
//		replycx.TextPart("greeting", "We open at nine."),
//	}, nil)
//
// A [Client] is safe for concurrent use and makes exactly one attempt per call:
// it never repeats a request, never follows a redirect and sends the token to
// the API's own origin only. Retries are the caller's decision, because most
// operations of this API create an object that no other operation can list,
// change or delete. A context that ends aborts a call; [Timeouts] bounds the phases of
// a request without one.
//
// The documentation of each operation names its endpoint, its section of the API's
// document (https://help.reply.cx/integrations/public-apis) and the errors in that
// section. Where the document is silent, it says so. [OpenAPI] returns the same facts
// for other tools.
//
// # Errors
//
// A refusal by the API is an [*Error]: it carries the HTTP status, the API's code
// and message, and how long to wait. [Error.Class] sorts refusals by their meaning
// for the next request. Every documented code has a constant, so
// errors.Is(err, replycx.ErrKnowledgeBaseNotFound) works. An answer that claims
// success and cannot be parsed is an [*AnswerError]: the operation may have
// happened. Any other error is a failure of the transport, or an invalid argument, with
// which the client sends nothing. The end of a context is visible to errors.Is, as
// context.Canceled or context.DeadlineExceeded.
//
// An upload may return any of these inside an [*UnsentError]. It proves that the
// server never had the whole request, so sending it again cannot create a
// duplicate. See [Client.UploadSources].
//
// # Testing
//
// Package [github.com/kbsync/kbsync/replycx/emulator] serves the API locally: your tests
// need no account and change no knowledge base.
//
// # When not to use it
//
// To keep a directory or a bucket in step with a knowledge base, use the kbsync
// program. Such a sync needs a durable record of every upload, because the API
// cannot list sources, and this package keeps no record.
package replycx
