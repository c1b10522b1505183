package replycx

import (
	_ "embed" // for openapi.json
)

//go:embed openapi.json
var openAPI string

// OpenAPI returns an OpenAPI 3.1 document of the API's operations as JSON. It
// has the documented requests, answers and errors; for each error it has the documented
// body as an example. kbsync's authors wrote it from the API's document; the vendor
// publishes none.
func OpenAPI() []byte { return []byte(openAPI) }
