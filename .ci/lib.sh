# shellcheck shell=bash
# What the scripts of .ci share. Sourced, from the top of the clone.

# testsum is the counter of test results (see .ci/tools/testsum).
testsum=$PWD/build/testsum
build_testsum() {
	mkdir -p build/results
	go -C .ci/tools build -o "$testsum" ./testsum
}

# go_tests NAME RUNDIR ARGS… runs go test with ARGS in RUNDIR, shows what a person needs of it, keeps all of
# it in build/results/NAME.json and the count in build/results/NAME.count.
go_tests() {
	local name=$1 dir=$2
	shift 2
	rm -f "build/results/$name.count"
	go -C "$dir" test -json "$@" 2>&1 | tee "build/results/$name.json" |
		"$testsum" -skips .ci/skips -out "build/results/$name.count" go
}

# node_tests NAME runs the pages' tests and does the same with what Node's test runner says.
node_tests() {
	local name=$1
	rm -f "build/results/$name.count"
	pages_tests 2>&1 </dev/null | tee "build/results/$name.log" |
		"$testsum" -skips .ci/skips -out "build/results/$name.count" node
}

# Where .ci/deps has found the machine's Node too old for the tests, it has put one into .ci/node. Debian's npm
# would start its own again, so that one runs the script by itself (node --run, Node 22).
pages_tests() {
	local newer=(.ci/node/node_modules/node-linux-*/bin) # npm 9 makes no .bin for it
	if [ -x "${newer[0]}/node" ]; then
		env -C provisioning/web PATH="$PWD/${newer[0]}:$PATH" node --run test
	else
		npm --prefix provisioning/web test
	fi
}
