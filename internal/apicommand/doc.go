// Package apicommand is the command kbsync api: it calls single operations of the ReplyCX API by hand, without the inventory.
// The program gives it a console and a function that loads the settings; its errors have a class of package engine.
//
//   - program.go is what the program gives, and the frame of every command.
//   - api.go lists bots and the training status of sources; upload.go uploads files.
//   - conversation.go starts conversations and acts in them; webhook.go sets the webhook and receives its events.
//   - failure.go decides the class of an error, and whether the operation may have happened.
package apicommand
