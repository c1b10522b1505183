package emulator_test

import (
	"context"
	"errors"
	"fmt"
	"log"

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
