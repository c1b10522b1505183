// Package cloudtest contains only tests: of bucket roots, and of the program with bucket roots, with real servers for the protocols
// of the three clouds. versitygw serves S3, fake-gcs-server serves Google Cloud Storage in this process, and Azurite serves Azure.
// .ci/servers installs the servers that are separate programs. Tests of missing servers are skipped, unless TEST_SERVERS is all.
package cloudtest
