#!/usr/bin/env bash
# Every benchmark of an accelerator, in parts: benchmarks/gpu.sh OUT_DIR [PART …]
#
# Each part leaves OUT_DIR/PART.csv, PART.log and, once it is done, PART.done; a comparison draws PART.png too. A part
# that is done is skipped, one that was cut off starts anew. Nothing runs for longer than WBC_BENCH_SECONDS, 530 by
# default: a part is begun only where its time is left, and the same command again goes on with the rest. With names
# after OUT_DIR only those parts run.
#
# Needs a Python (PYTHON, or python3) with jax, flax, optax and numpy, for the peers torch and torchvision, for pictures
# matplotlib. Nothing is downloaded. WBC_BENCH_PRESET=tiny runs every part in small, on a CPU too: to see that it works.
set -u
[ $# -ge 1 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
out=$1
shift
wanted=" $* "
budget=${WBC_BENCH_SECONDS:-530}
python=${PYTHON:-python3}
failed=0 left=0
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2

if [ "${WBC_BENCH_PRESET:-full}" = tiny ]; then
  papers="resnet_tiny" more="map_tiny" lone=resnet_tiny
  size="--batch-size 2 --image-size-px 32"
  few="$size --repeats 2 --timed-steps 1 --warmup-steps 1"
  store="--images 8 --store-size-px 36"
  batches="4" compile_mode=off patience=100 # a CPU may be busy with other work
else
  papers="resnet50 scam daffnet amnet" lone=resnet50
  more="densenet121 resnext50_32x4d se_resnext50_32x4d epsanet50"
  size="" few="" store="--images 2048"
  batches="512 1024" compile_mode=default patience=2
  # Programs that several parts compile are compiled once. Read back by the CPU backend they may hang.
  export JAX_COMPILATION_CACHE_DIR="$out/.compiled" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1
  mkdir -p -m 700 "$JAX_COMPILATION_CACHE_DIR"
fi

# part NAME SECONDS SCRIPT ARGUMENT…   SECONDS: what it takes; it is cut off after twice that.
part() {
  local name=$1 seconds=$2 script=$3 limit
  shift 3
  [ "$wanted" = "  " ] || [[ "$wanted" == *" $name "* ]] || return 0
  if [ -e "$out/$name.done" ]; then echo "$name: done before"; return 0; fi
  if [ $((SECONDS + seconds)) -gt "$budget" ]; then left=$((left + 1)); echo "$name: left for the next call"; return 0; fi
  limit=$((patience * seconds))
  [ $((SECONDS + limit)) -le "$budget" ] || limit=$((budget - SECONDS))
  rm -f "$out/$name.csv"
  local began=$SECONDS
  if timeout -k 5 "$limit" "$python" "$here/$script" "$@" --out "$out/$name.csv" >"$out/$name.log" 2>&1; then
    touch "$out/$name.done"
    echo "$name: $((SECONDS - began)) s"
    cat "$out/$name.log"
  else
    failed=$((failed + 1))
    echo "$name: not done, see $out/$name.log"
    tail -n 5 "$out/$name.log"
  fi
}

# In order of worth: the first call answers whether we are ahead of eager PyTorch and how near the limit, and what input
# costs; the calls after it bring compiled PyTorch, the other networks and the forms of each network.
part compare-train 210 compare.py --models $papers --torch-compile off $few
part end-to-end 60 end_to_end.py --models $lone $store $few
part input 40 input.py $store $few
part compare-infer 90 compare.py --models $papers --mode infer --torch-compile off $few
forms="pointwise=dot max_pool=parity stem=padded stem=space_to_depth"
part variants 110 variants.py --models $lone --forms $forms $few
part startup 100 startup.py --models $lone --repeats 1 $size
for model in $papers; do
  part "compiled-$model" 150 compare.py --models "$model" --torch-compile "$compile_mode" $few
done
part compare-more 210 compare.py --models $more --torch-compile off $few
part batch-sizes 90 variants.py --models $lone --batch-sizes $batches $few
for model in $papers; do
  [ "$model" = $lone ] && continue
  forms="pointwise=dot max_pool=parity stem=space_to_depth"
  [ "$model" = scam ] || forms="$forms grouped=split grouped=merged32 grouped=merged64"
  part "variants-$model" 200 variants.py --models "$model" --forms $forms $few
done

[ "$left" = 0 ] || echo "$left parts are left: run the same command again"
[ "$failed" = 0 ] || { echo "$failed parts were not done"; exit 1; }
