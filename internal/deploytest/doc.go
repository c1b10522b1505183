// Package deploytest has only tests. They check the manifests in examples/kubernetes against the types of the Kubernetes API,
// and examples/compose.yaml against the Compose specification. The tests of cmd/kbsync check the command lines and configs in
// the examples.
//
// They also check the golden exchanges of the client, replycx/testdata/api, against the OpenAPI document of the API.
package deploytest
