package emulator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
)

func Example() {
	e, err := emulator.New(emulator.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	url, err := e.Start("")
	if err != nil {
		log.Fatal(err)
	}
	client, err := replycx.New(e.Token(51), replycx.Options{BaseURL: url})
	if err != nil {
		log.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if _, err := client.UploadSources(context.Background(), 876, []replycx.Part{replycx.TextPart("greeting", "Hello")}, nil); err != nil {
		log.Fatal(err)
	}
	for _, s := range e.Accepted() {
		fmt.Printf("%s has %d bytes with the hash %x\n", s.Field, s.Size, s.SHA256[:4])
	}
	// Output: greeting has 5 bytes with the hash 185f8db3
}

// A fault script makes the server fail, here as a gateway that loses the answer of
// the second upload.
func ExampleParseFaults() {
	faults, err := emulator.ParseFaults([]byte(`
faults:
  - {operation: upload, nth: [2], status: 502, at: after}
`))
	if err != nil {
		log.Fatal(err)
	}
	e, err := emulator.New(emulator.Options{Faults: faults})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	url, err := e.Start("")
	if err != nil {
		log.Fatal(err)
	}
	client, err := replycx.New(e.Token(51), replycx.Options{BaseURL: url})
	if err != nil {
		log.Fatal(err)
	}
	defer client.CloseIdleConnections()
	for range 3 {
		_, err := client.UploadSources(context.Background(), 876, []replycx.Part{replycx.TextPart("greeting", "Hello")}, nil)
		var refused *replycx.Error
		errors.As(err, &refused)
		fmt.Println(refused != nil && refused.StatusCode == 502, e.Counts().AcceptedUploads)
	}
	// Output:
	// false 1
	// true 2
	// false 3
}

// A test moves the clock instead of waiting for a training of two hours.
func ExampleEmulator_Advance() {
	e, err := emulator.New(emulator.Options{Train: 2 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	url, err := e.Start("")
	if err != nil {
		log.Fatal(err)
	}
	client, err := replycx.New(e.Token(51), replycx.Options{BaseURL: url})
	if err != nil {
		log.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if _, err := client.UploadSources(context.Background(), 876, []replycx.Part{replycx.TextPart("greeting", "Hello")}, nil); err != nil {
		log.Fatal(err)
	}
	fmt.Println(e.Accepted()[0].Status)
	if err := e.Advance(2 * time.Hour); err != nil {
		log.Fatal(err)
	}
	fmt.Println(e.Accepted()[0].Status)
	// Output:
	// in-progress
	// completed
}

// A snapshot brings an emulator back to a state that was costly to make.
func ExampleEmulator_Snapshot() {
	e, err := emulator.New(emulator.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	var prepared bytes.Buffer
	if err := e.Snapshot(&prepared); err != nil {
		log.Fatal(err)
	}
	// Each test would change the emulator, and begin with:
	if err := e.Restore(bytes.NewReader(prepared.Bytes())); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(e.Conversations()), "conversations")
	// Output: 4 conversations
}
