// Package deploytest has only tests: of the manifests in examples/kubernetes against the types of the Kubernetes API, and of
// examples/compose.yaml against the Compose specification. What the examples make kbsync do is tested beside the program, in
// cmd/kbsync.
package deploytest
