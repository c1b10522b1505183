// Package cloudtest has only tests: of bucket roots and of the program with them, against real servers of the three clouds'
// protocols. S3 is served by versitygw, Google Cloud Storage by fake-gcs-server in this process, Azure by Azurite. .ci/servers
// installs what is a program of its own; what is not there is left out, unless TEST_SERVERS is all.
package cloudtest
