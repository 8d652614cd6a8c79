// Package fault holds tests that break things around real processes: kill -9, cut
// networks, a full disk, key documents that fail, ends in the middle of work. They
// carry the tag fault:
//
//	go test -tags fault ./test/fault [-rounds 200] [-revocations 10000] [-seed N]
//
// TestDiskFull mounts a small file system, and so needs root.
package fault
