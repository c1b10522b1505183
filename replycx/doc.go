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
// the API's own origin only. Whoever wants retries owns them, because most
// operations of this API create something that no other operation can list,
// change or delete.
//
// # Errors
//
// An answer of the API that says no is an [*Error]: it carries the HTTP status,
// the API's code and message, and how long to wait. Every documented code has a
// constant, so errors.Is(err, replycx.ErrKnowledgeBaseNotFound) works. An answer
// that claims success and cannot be understood is an [*AnswerError]: what was
// asked for may well have happened. Anything else is a failure of the transport.
//
// For an upload one more thing is worth knowing: an [*UnsentError] around any of
// these proves that the server never had the whole request, so that sending it
// again cannot create a duplicate. See [Client.UploadSources].
//
// # When not to use it
//
// Keeping a directory or a bucket in step with a knowledge base takes a durable
// record of what was uploaded, since the API cannot list sources. That is what
// the kbsync program is for; this package knows nothing of it.
package replycx
