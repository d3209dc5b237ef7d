#!/usr/bin/env bash
# Every benchmark of an accelerator, in parts: benchmarks/gpu.sh OUT_DIR [PART …]
#
# Each part leaves OUT_DIR/PART.csv, PART.log and, once it is done, PART.done; a comparison draws PART.png too. A part is
# one network, so what is finished stays; one that is done is skipped, one that was cut off starts anew. Nothing runs for
# longer than WBC_BENCH_SECONDS, 530 by default: a part is begun only where its time is left, and the same command again
# goes on with the rest. With names after OUT_DIR only those parts run; a name may be a pattern, such as 'compare-*'.
#
# Needs a Python (PYTHON, or python3) with jax, flax, optax and numpy, for the peers torch and torchvision, for pictures
# matplotlib. Nothing is downloaded. WBC_BENCH_DEVICES: how many devices share a step, where that is not to be asked of
# nvidia-smi. WBC_BENCH_PRESET=tiny runs every part in small, on a CPU too: to see that it works.
set -u
[ $# -ge 1 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
out=$1
shift
wanted=("$@")
budget=${WBC_BENCH_SECONDS:-530}
python=${PYTHON:-python3}
failed=0 left=0
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2

if [ "${WBC_BENCH_PRESET:-full}" = tiny ]; then
  papers="resnet_tiny scam_tiny daffnet_tiny amnet_tiny" lone=resnet_tiny
  more="map_tiny densenet_tiny" depthwise=densenet_tiny
  size="--batch-size 2 --image-size-px 32"
  few="$size --repeats 2 --timed-steps 1 --warmup-steps 1"
  store="--images 8 --store-size-px 36"
  batches="4" compiled=off autotuned=off patience=100 # a CPU may be busy with other work
else
  papers="resnet50 scam daffnet amnet" lone=resnet50
  more="densenet121 resnext50_32x4d se_resnext50_32x4d epsanet50 mobilenet_v2" depthwise=mobilenet_v2
  size="" few="" store="--images 2048"
  batches="512 1024" compiled=default autotuned=max-autotune patience=2
  # Programs that several parts compile are compiled once. Read back by the CPU backend they may hang.
  export JAX_COMPILATION_CACHE_DIR="$out/.compiled" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1
  mkdir -p -m 700 "$JAX_COMPILATION_CACHE_DIR"
fi

# asked_for NAME   Is the part among those that were named, or were none?
asked_for() {
  local pattern
  [ ${#wanted[@]} -gt 0 ] || return 0
  for pattern in "${wanted[@]}"; do
    # shellcheck disable=SC2053 # a pattern is meant
    [[ "$1" == $pattern ]] && return 0
  done
  return 1
}

# part NAME SECONDS SCRIPT ARGUMENT…   SECONDS: what it takes; it is cut off after twice that.
part() {
  local name=$1 seconds=$2 script=$3 limit
  shift 3
  asked_for "$name" || return 0
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

# joined FORM…   The first form of each kind, joined by commas: one step with all of them.
joined() { printf '%s\n' "$@" | awk -F= '!seen[$1]++' | paste -sd, -; }

# variants MODE NETWORK FORM…   All together first, then each alone; four in a part, compiled at once.
variants() {
  local mode=$1 model=$2 number=0 alone="" all
  shift 2
  [ "$mode" = infer ] || alone="--steps-per-call 1"
  all=$(joined "$@")
  [ "$all" = "$1" ] || set -- "$all" "$@" # forms of one kind have no whole
  while [ $# -gt 0 ]; do
    number=$((number + 1))
    part "variants-$mode-$model-$number" 150 variants.py --models "$model" --mode "$mode" $alone --forms "${@:1:4}" $few
    shift $(($# < 4 ? $# : 4))
  done
}

# forms_of MODE NETWORK   The forms that change such a step, the likeliest to gain first.
forms_of() {
  local forms="pointwise=dot stem=space_to_depth stem=padded"
  [ "$1" = infer ] || forms="norm_gradient=recomputed $forms max_pool=parity strided=parity"
  case "$1 $2" in
    "train scam"*) forms="$forms transition=pool_first narrow=rows moments=repeated" ;;
    "infer scam"*) forms="growth=in_place transition=pool_first $forms narrow=rows" ;;
    *daffnet*) forms="grouped=merged64 grouped=merged32 grouped=split $forms narrow=rows" ;;
    *amnet*) forms="grouped=merged64 grouped=merged32 grouped=split $forms" ;;
  esac
  [ "$1" = infer ] || forms="$forms reuse=stored"
  echo "$forms"
}

# How many devices a step can be spread over.
devices=${WBC_BENCH_DEVICES:-$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ')}
if [ -z "${WBC_BENCH_DEVICES:-}" ] && [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
  devices=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .)
fi

# In order of worth: the first call answers, network by network, whether we are ahead of eager PyTorch and how near the
# limit, and what input costs; the calls after it bring the forms of each network, compiled PyTorch and other networks.
for model in $papers; do part "compare-train-$model" 100 compare.py --models "$model" --torch-compile off $few; done
part end-to-end 60 end_to_end.py --models $lone $store $few
part input 40 input.py $store $few
for model in $papers; do
  part "compare-infer-$model" 60 compare.py --models "$model" --mode infer --torch-compile off $few
done
for mode in train infer; do
  for model in $papers; do variants $mode "$model" $(forms_of $mode "$model"); done
done
part startup 100 startup.py --models $lone --repeats 1 $size
if [ "$devices" -gt 1 ]; then
  counts=1
  for ((count = 2; count <= devices; count *= 2)); do counts="$counts $count"; done
  part scaling 150 scaling.py --models $lone --image-size-px 224 --devices $counts $few
fi
for mode in train infer; do
  for model in $papers; do
    part "compiled-$mode-$model" 150 compare.py --models "$model" --mode $mode --torch-compile $compiled $few
  done
done
for mode in train infer; do
  for model in $papers; do
    part "autotuned-$mode-$model" 300 compare.py --models "$model" --mode $mode --torch-compile $autotuned $few
  done
done
for mode in train infer; do
  for model in $more; do
    part "compare-$mode-$model" 100 compare.py --models "$model" --mode $mode --torch-compile off $few
  done
done
for mode in train infer; do
  variants $mode $depthwise depthwise=shifted depthwise=merged64 depthwise=merged32 depthwise=split
done
part steps-per-call 90 variants.py --models $lone --steps-per-call 4 $few
part batch-sizes 90 variants.py --models $lone --steps-per-call 1 --batch-sizes $batches $few

[ "$left" = 0 ] || echo "$left parts are left: run the same command again"
[ "$failed" = 0 ] || { echo "$failed parts were not done"; exit 1; }
