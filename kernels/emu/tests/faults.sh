#!/usr/bin/env bash
# Mistakes planted in the engine's own kernels, one at a time: `posteriori check` must catch each of them, by an error of
# the launch, by bits that depend on the schedule, or by values out of bound. Without a mistake it must pass.
set -uo pipefail
cd "$(dirname "$0")/../../.."
source kernels/emu/tests/common.sh

out=target/emu-tests/faults
objects=${posteriori%/*}/posteriori-emu  # of the program's own kernels
kernels=()  # that mistakes are planted in
runs=()     # OP:VARIANT that run them

check() {  # FOLDER LOG OP[:VARIANT]
  local op=${3%%:*}
  local variant=${3#"$op"}
  POSTERIORI_EMU_KERNELS=$PWD/$1/library.so timeout 600 \
    "$posteriori" check --runtime emu --fail-fast --op "$op" --variant "${variant#:}" > "$2" 2>&1
}

# try FOLDER OP:VARIANT KERNEL FILE EDIT: whether that mistake is caught, and how.
try() {
  local folder=$1 run=$2 kernel=${3%.sm90a}
  plant "$folder" "${@:3}" "" && link "$folder/library.so" "" $out/emulator/*.o "$folder/kernel.o" || return
  check "$folder" "$folder/log" "$run"
  local code=$?
  # 1: rows that failed, 4: a launch that failed
  if [ $code != 1 ] && [ $code != 4 ]; then echo "exit code $code, see $folder/log"; return 1; fi
  grep -m 1 -A 1 "FAILED\|kernel .${kernel//\//_}" "$folder/log" | tail -n 1 | sed 's/^ *//' | cut -c -160
}

turn() { while [ "$(jobs -rp | wc -l)" -ge $jobs ]; do wait -n; done; }

# planted NAME OP[:VARIANT] KERNEL FILE EDIT: tries in the background; the verdict goes to a file. VARIANT is a text that
# names of variants contain: those that run the kernel, no others, so that a mistake costs seconds.
planted() {
  local name=$1
  kernels+=("kernels/$3.cu") runs+=("$2")
  turn
  {
    local how
    how=$(try "$out/$name" "${@:2}" 2>&1)
    verdict "$name is caught: $how" $? > "$out/$name.verdict"
  } &
}

# passes OP:VARIANT: tries without a mistake, as above.
passes() {
  turn
  {
    check $out/control "$out/control/$1.log" "$1"
    verdict "without a mistake: $1 passes" $? > "$out/control/$1.verdict"
  } &
}

cargo build --quiet --features emu || exit
rm -f $out/*.verdict $out/*/*.verdict $out/*/kernel.o
compile $out/emulator "" kernels/emu/*.cpp || exit

# Barriers and waits: the schedule shows.
planted tile_before_a_step conv2d.forward:tensor_cores conv2d/fwd_2_tensor_cores common/tile.cuh \
  '/__syncthreads();  \/\/ this step has arrived/d'
planted tile_wait conv2d.forward:tensor_cores conv2d/fwd_2_tensor_cores common/tile.cuh \
  's/cp_async_wait<S::STAGES - 2>/cp_async_wait<S::STAGES - 1>/'
planted tile_before_parts linear.forward:tensor_cores linear/fwd_2_tensor_cores common/tile.cuh \
  '/__syncthreads();  \/\/ all warps are done/d'
planted tile_whole_part linear.forward:tensor_cores linear/fwd_2_tensor_cores common/tile.cuh \
  '/__syncwarp();  \/\/ the part is whole/d'
planted warpgroup_before_a_step linear.forward:wgmma_256 linear/fwd_3_wgmma.sm90a common/warpgroup.cuh \
  '/__syncthreads();  \/\/ this step has arrived/d'
planted warpgroup_wait conv2d.forward:wgmma_256 conv2d/fwd_5_wgmma.sm90a common/warpgroup.cuh \
  's/cp_async_wait<S::STAGES - 3>/cp_async_wait<S::STAGES - 2>/'
planted warpgroup_fence conv2d.forward:wgmma_256 conv2d/fwd_5_wgmma.sm90a common/warpgroup.cuh '/fence_proxy_async/d'
planted warpgroup_overtaken linear.forward:wgmma_256 linear/fwd_3_wgmma.sm90a common/warpgroup.cuh \
  's/wgmma_wait<1>/wgmma_wait<2>/'
planted gated_whole_part linear.vjp_geglu:tensor_cores linear/vjp_8_geglu_tensor_cores common/tile.cuh \
  '/__syncwarp();  \/\/ the part is whole/d'
planted gated_unfinished linear.vjp_geglu:tma linear/vjp_10_geglu_tma.sm90a common/patches90.cuh '/wgmma_wait<0>/d'
planted warpgroup_unfinished linear.vjp:wgmma_256 linear/vjp_3_wgmma.sm90a common/warpgroup.cuh '/wgmma_wait<0>/d'
planted flash_before_a_tile attention.forward:flash attention/fwd_2_flash attention/fwd_2_flash.cu \
  '/__syncthreads();  \/\/ the tile is there/d'
planted flash_wait attention.forward:flash attention/fwd_2_flash attention/fwd_2_flash.cu \
  's/cp_async_wait<0>/cp_async_wait<1>/'
planted flash90_operands attention.forward:wgmma attention/fwd_4_wgmma.sm90a common/flash90.cuh '/nor is its stage/d'
planted flash90_scores attention.vjp:wgmma attention/vjp_4_wgmma.sm90a common/flash90.cuh '/the scores are there/d'
planted flash90_sums attention.vjp_kv:wgmma attention/vjp_kv_4_wgmma.sm90a common/flash90.cuh '/the sums are there/d'
planted flash90_copies attention.forward:wgmma attention/fwd_4_wgmma.sm90a common/flash90.cuh \
  's/cp_async_wait<1>/cp_async_wait<2>/'
planted flash90_proxy_fence attention.forward:wgmma attention/fwd_4_wgmma.sm90a common/flash90.cuh \
  '/fence_proxy_async/d'
planted flash90_operand_fence attention.forward:wgmma attention/fwd_4_wgmma.sm90a common/flash90.cuh \
  '/wgmma_fence();  \/\/ x was scaled/d'
planted flash90_stage attention.vjp:wgmma attention/vjp_4_wgmma.sm90a common/flash90.cuh \
  's/release(i - 1)/release(i)/'
planted flash90_whole_rows attention.forward:wgmma attention/fwd_4_wgmma.sm90a common/flash90.cuh \
  '/whole rows are there/d'
planted patches_stage conv2d.forward:tma conv2d/fwd_8_tma.sm90a common/patches90.cuh '/ring.await_empty(step)/d'
planted patches_arrival conv2d.vjp:tma conv2d/vjp_9_tma.sm90a common/patches90.cuh '/ring.await(step)/d'
planted patches_overtaken linear.forward:tma linear/fwd_6_tma.sm90a common/patches90.cuh \
  's/wgmma_wait<1>/wgmma_wait<2>/'
planted patches_unfinished linear.vjp:tma linear/vjp_6_tma.sm90a common/patches90.cuh '/wgmma_wait<0>/d'
planted patches_bytes conv2d.forward:tma conv2d/fwd_8_tma.sm90a common/patches90.cuh \
  's/expect_tx(full, S::STAGE_BYTES)/expect_tx(full, S::A_BYTES)/'
planted halo_stage conv2d.forward:halo conv2d/fwd_9_halo.sm90a common/halo90.cuh '/image.await_empty(step)/d'
planted halo_weights conv2d.vjp:halo conv2d/vjp_10_halo.sm90a common/halo90.cuh '/weights.await_empty(tap)/d'
planted halo_first_arrival conv2d.forward:halo conv2d/fwd_9_halo.sm90a common/halo90.cuh '/^    await_image();/d'
planted halo_arrival conv2d.vjp:halo conv2d/vjp_10_halo.sm90a common/halo90.cuh '/if (ends) await_image()/d'
planted halo_weights_arrival conv2d.forward:halo conv2d/fwd_9_halo.sm90a common/halo90.cuh '/weights.await(tap)/d'
planted halo_early conv2d.forward:halo conv2d/fwd_9_halo.sm90a common/halo90.cuh '/nor is the early one/d'
planted halo_late conv2d.vjp:halo conv2d/vjp_10_halo.sm90a common/halo90.cuh '/the late half of the tap before/d'
planted halo_released conv2d.forward:halo conv2d/fwd_9_halo.sm90a common/halo90.cuh \
  's/if (i > 0) weights.release(tap - 1)/weights.release(tap)/'
planted halo_image_released conv2d.vjp:halo conv2d/vjp_10_halo.sm90a common/halo90.cuh \
  's/ends = row == last_row \&\& of_row == last_col/ends = row == last_row \&\& of_row == 0/'
planted halo_unfinished conv2d.vjp:halo conv2d/vjp_10_halo.sm90a common/halo90.cuh '/wgmma_wait<0>/d'
planted halo_operand_fence conv2d.forward:halo conv2d/fwd_9_halo.sm90a common/halo90.cuh '/wgmma_fence();  \/\/ a was read/d'
planted halo_read_fence conv2d.forward:halo conv2d/fwd_9_halo.sm90a common/halo90.cuh '/what ldmatrix has read/d'
planted halo_bytes conv2d.forward:halo conv2d/fwd_9_halo.sm90a common/halo90.cuh \
  's/expect_tx(full, WEIGHT_BYTES)/expect_tx(full, WEIGHT_BYTES \/ 2)/'
planted normed_arrival conv2d.forward_normed:halo conv2d/fwd_10_normed_halo.sm90a common/made90.cuh \
  '/this->image.await(this->step)/d'
planted normed_warps conv2d.forward_normed:halo conv2d/fwd_10_normed_halo.sm90a common/made90.cuh 's/16 \* i, HELPERS)/16 * i, 1)/'
planted normed_stage conv2d.forward_normed:halo conv2d/fwd_10_normed_halo.sm90a common/made90.cuh \
  's/this->step % Image::STAGES \* 16/0/'
planted normed_await conv2d.forward_normed:halo conv2d/fwd_10_normed_halo.sm90a common/halo90.cuh '/if (ends) await_image()/d'
planted summed_arrival conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh '/tiles.await(turn)/d'
planted summed_stage conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh \
  's/tiles.full(turn++)/tiles.full(2 * turn++)/'
planted summed_release conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh \
  's/tiles.release(turn++)/++turn/'
planted summed_warps conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh \
  's/tiles.init(patches::MULTIPLIERS \/ 32,/tiles.init(1,/'
planted summed_last conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh '/all of it is stored/d'
planted through_arrival conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/made90.cuh '/this->image.await(this->step)/d'
planted through_stage conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/made90.cuh 's/stage(this->step) - /stage(this->step + 1) - /'
planted through_await conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/halo90.cuh '/^    await_image();/d'
planted through_stored conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/summed90.cuh '/tiles.await(turn)/d'
planted three_weights conv2d.forward:three conv2d/fwd_11_three_outputs conv2d/fwd_11_three_outputs.cu \
  '/__syncthreads();  \/\/ the weights are there/d'
planted three_overwritten conv2d.forward:three conv2d/fwd_11_three_outputs conv2d/fwd_11_three_outputs.cu \
  '/__syncthreads();  \/\/ nobody needs the weights/d'
planted three_products conv2d.forward_normed:three conv2d/fwd_11_three_outputs conv2d/fwd_11_three_outputs.cu \
  '/__syncthreads();  \/\/ the products are there/d'
planted three_stage conv2d.vjp:three conv2d/vjp_13_three_outputs common/three_outputs.cuh \
  '/__syncthreads();  \/\/ nobody needs the stage/d'
planted three_arrival conv2d.vjp:three conv2d/vjp_13_three_outputs common/three_outputs.cuh \
  '/__syncthreads();  \/\/ the stage is there/d'
planted three_sums conv2d.vjp_normed:three conv2d/vjp_14_normed_three_outputs conv2d/vjp_14_normed_three_outputs.cu \
  '/__syncthreads();  \/\/ all are there/d'
planted moments_barrier conv2d.forward_moments:tma conv2d/fwd_8_tma.sm90a common/moments90.cuh \
  '/moments are there; nobody/d'
planted fold_sum group_norm.vjp_from_sums:chunks group_norm/vjp_2_chunks common/reduce.cuh 's/^  __syncthreads();$//'
planted fold_join group_norm.from_moments:chunks group_norm/fwd_2_chunks common/reduce.cuh \
  '/__syncthreads();  \/\/ part is complete/d'
planted chunks_sums group_norm.forward:chunks group_norm/fwd_2_chunks group_norm/fwd_2_chunks.cu \
  '/__syncthreads();  \/\/ sums are complete/d'
planted cluster_told group_norm.forward:cluster group_norm/fwd_4_cluster.sm90a group_norm/fwd_4_cluster.sm90a.cu \
  '/cluster_sync();  \/\/ all blocks have told/d'
planted cluster_last group_norm.vjp:cluster group_norm/vjp_4_cluster.sm90a group_norm/vjp_4_cluster.sm90a.cu \
  '/cluster_sync();  \/\/ all have read/d'
planted cluster_copies group_norm.vjp:cluster group_norm/vjp_4_cluster.sm90a group_norm/vjp_4_cluster.sm90a.cu \
  's/cp_async_wait<0>/cp_async_wait<1>/'
planted cluster_means group_norm.forward:cluster group_norm/fwd_4_cluster.sm90a group_norm/fwd_4_cluster.sm90a.cu \
  '/the means of the slice are there/d'
planted cluster_statistics group_norm.forward:cluster group_norm/fwd_4_cluster.sm90a group_norm/fwd_4_cluster.sm90a.cu \
  '/the statistics are there/d'
planted cluster_fold group_norm.vjp:cluster group_norm/vjp_4_cluster.sm90a common/slices90.cuh \
  '/the sums of all warps are there/d'
planted sum_before_reuse group_norm.forward:resident group_norm/fwd_3_resident common/reduce.cuh \
  '/__syncthreads();  \/\/ the last call/d'
planted sum_before_reading residual.forward:plain residual/fwd_1_plain common/reduce.cuh 's/^  __syncthreads();$//'
planted lookup_before_finding lookup.forward:plain lookup/fwd_1_plain lookup/fwd_1_plain.cu \
  '/__syncthreads();  \/\/ before anyone/d'

# Indices, sizes and swizzles: the values show, or a guard.
planted tile_swizzle linear.forward:tensor_cores linear/fwd_2_tensor_cores common/tile.cuh \
  's/lane % 16, k \/ PIECE + lane \/ 16)/lane % 16 + 2, k \/ PIECE + lane \/ 16) - 4 * S::DEPTH/'
planted warpgroup_swizzle linear.forward:wgmma_256 linear/fwd_3_wgmma.sm90a common/warpgroup.cuh \
  's/piece ^ (row % PIECES)/piece ^ (row \/ 2 % PIECES)/'
planted warpgroup_blocks linear.vjp:wgmma_256 linear/vjp_3_wgmma.sm90a common/warpgroup.cuh \
  's/16 : S::BLOCK_BYTES/16 : S::ATOM_BYTES/'
planted warpgroup_rows conv2d.vjp:wgmma_256 conv2d/vjp_5_wgmma.sm90a common/warpgroup.cuh \
  's/threadIdx.x \/ 128 \* 64/threadIdx.x \/ 128 * 56/'
planted taps_column conv2d.forward:tensor_cores conv2d/fwd_2_tensor_cores common/taps.cuh \
  's/at_col = col\[i\] + DIRECTION \* walk.col/& + 1/'
planted phases_place conv2d.vjp:phases_64 conv2d/vjp_4_phases common/phases.cuh \
  's/pixel % width \* stride + col/pixel % width * stride/'
planted phases_taps conv2d.vjp:phases_64 conv2d/vjp_4_phases common/phases.cuh \
  's/tap((phase + p.before) % p.stride)/tap(phase % p.stride)/'
planted split_start conv2d.forward:split_64 conv2d/fwd_6_split common/chunks.cuh \
  's/first = blockIdx.z \* each/& - 8 * blockIdx.z/'
planted split_end conv2d.vjp:split_wgmma conv2d/vjp_8_split_wgmma.sm90a common/taps.cuh \
  's/left = chunk.depth/left = chunk.depth + 32/'
planted split_end_of_rows linear.forward:split_wgmma linear/fwd_5_split_wgmma.sm90a common/tile.cuh \
  's/end(chunk.first + chunk.depth)/end(depth_)/'
planted split_sums linear.vjp:split_64 linear/vjp_4_split common/chunks.cuh \
  's/blockIdx.z \* len/blockIdx.z * (len - 8)/'
planted parts_first conv2d.forward:split_64 sum/parts sum/parts.cu 's/int chunk = 0;/int chunk = 1;/'
planted parts_twice linear.forward:split_64 sum/parts sum/parts.cu 's/parts + chunk \* len + at/&, 2.0f/'
planted part_of_neighbour linear.forward:tensor_cores linear/fwd_2_tensor_cores common/linear.cuh \
  's/i == 0 ? first : i == 1 ? second/i == 0 ? first : i == 1 ? third/'
planted part_stays linear.vjp:tensor_cores linear/vjp_2_tensor_cores common/linear.cuh '/this->from = next;/d'
planted part_starts_late linear.vjp:wgmma linear/vjp_3_wgmma.sm90a common/linear.cuh 's/this->at -= span/&- S::DEPTH/'
planted part_last linear.vjp:wgmma linear/vjp_3_wgmma.sm90a common/linear.cuh \
  's/parts.count \* a.span/(parts.count - parts.count \/ 3) * a.span/'
planted gated_halves linear.vjp_geglu:tensor_cores linear/vjp_8_geglu_tensor_cores common/geglu.cuh \
  's/vec::store(da + out.cols, g)/vec::store(da + out.cols, a)/'
planted gated_swapped linear.vjp_geglu:tma linear/vjp_10_geglu_tma.sm90a common/geglu.cuh \
  's/>(a), \(.*\)>(g)}/>(g), \1>(a)}/'
planted gated_offset linear.vjp_geglu:wgmma linear/vjp_9_geglu_wgmma.sm90a common/geglu.cuh 's/row) \* 2 \* cols/row) * cols/'
planted gated_slope linear.vjp_geglu:tensor_cores linear/vjp_8_geglu_tensor_cores common/math.cuh \
  's/d \* g \* phi.below/d * (phi.below + g * phi.density)/'
planted gated_value linear.vjp_geglu:wgmma linear/vjp_9_geglu_wgmma.sm90a common/math.cuh \
  's/phi.below + g \* phi.density/g * phi.below/'
planted gated_sign linear.vjp_geglu:tma linear/vjp_10_geglu_tma.sm90a common/math.cuh 's/x < 0.0f ? beyond/x > 0.0f ? beyond/'
planted gated_ahead linear.vjp_geglu:tma linear/vjp_10_geglu_tma.sm90a common/tile.cuh 's/ask(f + EACH)/ask(f)/'
planted gated_rows linear.vjp_geglu:tensor_cores linear/vjp_8_geglu_tensor_cores common/tile.cuh \
  's/beside(out, row_of(f, half)/beside(out, row_of(f, 0)/'
planted gated_edge linear.vjp_geglu:tensor_cores linear/vjp_8_geglu_tensor_cores common/tile.cuh \
  's/if (is_inside(f, half)) next/next/'
planted gated_plain linear.vjp_geglu:plain linear/vjp_7_geglu_plain linear/vjp_7_geglu_plain.cu \
  's/x\[at + p.k\]);/x[at]);/'
planted patches_pixel conv2d.forward:tma conv2d/fwd_8_tma.sm90a common/patches90.cuh \
  's/row(patch) + in_patch \/ WIDTH/row(patch) + in_patch % HEIGHT/'
planted patches_tap conv2d.vjp:tma conv2d/vjp_9_tma.sm90a common/patches90.cuh \
  's/work.direction \* tap_col/work.direction * tap_row/'
planted patches_phase conv2d.vjp:tma conv2d/vjp_9_tma.sm90a common/convolution90.cuh \
  's/phase(t).place/phase(0).place/'
planted patches_columns linear.vjp:tma linear/vjp_6_tma.sm90a common/patches90.cuh 's/col + 64 \* i/col + 32 * i/'
planted moments_unit conv2d.forward_moments:tma conv2d/fwd_8_tma.sm90a common/moments90.cuh \
  's/lane % 4 \* OF_PIECE/lane % 4/'
planted moments_group conv2d.vjp_moments:tma conv2d/vjp_9_tma.sm90a common/moments90.cuh 's/of = first \/ to.size/of = lane/'
planted moments_phase conv2d.vjp_moments:tma conv2d/vjp_9_tma.sm90a common/convolution90.cuh \
  's/phase \* grid.of_sample() + //'
planted halo_stack conv2d.forward:halo conv2d/fwd_9_halo.sm90a common/patches90.cuh 's/(N - 1) \* (stack/0 * (stack/'
planted halo_swizzle conv2d.forward:halo conv2d/fwd_9_halo.sm90a common/halo90.cuh \
  's/S::along_depth(y \* WIDTH + x, lane \/ 16)/S::along_depth(y * WIDTH, lane \/ 16) + x * S::ROW_BYTES/'
planted halo_tap conv2d.forward:halo conv2d/fwd_9_halo.sm90a common/halo90.cuh 's/last_row - row : row)/last_row - row : of_row)/'
planted halo_back conv2d.vjp:halo conv2d/vjp_10_halo.sm90a common/halo90.cuh 's/back \* (work.taps.rows - 1)/back/'
planted halo_patch conv2d.vjp:halo conv2d/vjp_10_halo.sm90a common/halo90.cuh \
  's/PATCH_BYTES = patches::HEIGHT \* WIDTH/PATCH_BYTES = patches::HEIGHT * patches::WIDTH/'
planted normed_edge conv2d.forward_normed:halo conv2d/fwd_10_normed_halo.sm90a common/made90.cuh 's/if (of.inside(i, round)) \*at/*at/'
planted normed_sample conv2d.forward_normed:halo conv2d/fwd_10_normed_halo.sm90a common/normed90.cuh \
  's/from.shift + of.of_sample()/from.shift + of.channel/'
planted normed_swizzle conv2d.forward_normed:halo conv2d/fwd_10_normed_halo.sm90a common/made90.cuh \
  's/of.pixel(i, round), of.piece()/of.pixel(i, round), of.piece() ^ 1/'
planted summed_unit conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh \
  's/!= helper() \/ 32/!= helper() \/ 32 + 1/'
planted summed_last_unit conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh \
  's/sum(tile, threadIdx.x \/ 32)/sum(tile, threadIdx.x \/ 64)/'
planted summed_last_turn conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh \
  's/from.tiles - 1 - /from.tiles - 2 - /'
planted summed_group conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh \
  's/group_0 + (channel + half \* HALF) \/ size/group_0 + channel \/ size/'
planted summed_join conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh 's/if (size > PIECE)/if (size > 16)/'
planted summed_part conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh \
  's/row \/ ROWS \* grid.across()/row \/ ROWS/'
planted summed_sample conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh \
  's/(sample \* grid.height + row)/row/'
planted summed_rows conv2d.vjp_summed:halo conv2d/vjp_11_summed_halo.sm90a common/summed90.cuh \
  's/y + AT_ONCE < ROWS/y + 2 * AT_ONCE < ROWS/'
planted through_edge conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/made90.cuh 's/if (of.inside(i, round)) \*at/if (of.has_channels()) *at/'
planted through_neighbour conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/made90.cuh 's/width + col\[i\])/width + col[i] + 1)/'
planted through_channels conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/made90.cuh 's/of.channel += S::DEPTH/of.channel += S::DEPTH \/ 2/'
planted through_rows conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/through90.cuh 's/next\[i\] += of.pitch()/next[i] += of.pitch() \/ 2/'
planted through_ahead conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/through90.cuh 's/of, round + 1)/of, round)/'
planted through_sample conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/through90.cuh 's/from.slope + of.of_sample()/from.slope + of.channel/'
planted through_slope conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/through90.cuh 's/du \* scale\[c\] + /du + /'
planted through_tile conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/summed90.cuh 's/patch = tile.patch;/patch = 0;/'
planted through_share conv2d.vjp_through:halo conv2d/vjp_12_through_halo.sm90a common/summed90.cuh 's/(i + 1) \* UNITS \/ n/UNITS \/ n/'
planted eights_depth conv2d.forward:three conv2d/fwd_11_three_outputs common/eights.cuh \
  's/v\[k + of \/ 2\]/v[k + 1 - of \/ 2]/'
planted three_edge conv2d.forward_normed:three conv2d/fwd_11_three_outputs conv2d/fwd_11_three_outputs.cu \
  's/if (from\[i \/ 2\]\[i % 2\]) a/a/'
planted three_sample conv2d.forward_normed:three conv2d/fwd_11_three_outputs conv2d/fwd_11_three_outputs.cu \
  's/scale + n \* p.inputs + channel/scale + channel/'
planted three_tap conv2d.forward:three conv2d/fwd_11_three_outputs conv2d/fwd_11_three_outputs.cu \
  's/pixel % SIDE + tap % 3/pixel % SIDE + tap \/ 3/'
planted three_beyond conv2d.forward:three conv2d/fwd_11_three_outputs conv2d/fwd_11_three_outputs.cu \
  '/if (source >= SOURCES) continue/d'
planted three_tile conv2d.forward:three conv2d/fwd_11_three_outputs conv2d/fwd_11_three_outputs.cu \
  's/across = (p.width + SIDE - 1) \/ SIDE/across = p.width \/ SIDE/'
planted three_back conv2d.vjp:three conv2d/vjp_13_three_outputs common/three_outputs.cuh \
  's/p.width + 1 - tap \/ 3/p.width - 1 + tap \/ 3/'
planted three_padding conv2d.vjp:three conv2d/vjp_13_three_outputs common/three_outputs.cuh '/and beyond 27 for ever/d'
planted three_channels conv2d.vjp:three conv2d/vjp_13_three_outputs common/three_outputs.cuh \
  's/2 \* j + g % 2/2 * j + g \/ 4/'
planted three_rows conv2d.vjp:three conv2d/vjp_13_three_outputs common/three_outputs.cuh \
  's/return {warp \/ across, rows/return {0, rows/'
planted three_ahead conv2d.vjp_normed:three conv2d/vjp_14_normed_three_outputs common/three_outputs.cuh \
  's/ask(pixel + place.rows \* eights::ROWS)/ask(pixel)/'
planted three_end conv2d.vjp:three conv2d/vjp_13_three_outputs common/three_outputs.cuh \
  '/if (pixel + 8 \* half >= pixels) continue/d'
planted three_lanes conv2d.vjp_normed:three conv2d/vjp_14_normed_three_outputs conv2d/vjp_14_normed_three_outputs.cu \
  's/offset = 4; offset/offset = 8; offset/'
planted three_group conv2d.vjp_normed:three conv2d/vjp_14_normed_three_outputs conv2d/vjp_14_normed_three_outputs.cu \
  's/norm_w\[c\] \* rstd\[group_0 + c \/ size\]/norm_w[c] * rstd[c \/ size]/'
planted three_slope conv2d.vjp_normed:three conv2d/vjp_14_normed_three_outputs conv2d/vjp_14_normed_three_outputs.cu \
  's/v\[i\] \* q\[i\] + o\[i\]/v[i] * q[i]/'
planted halo_moments conv2d.forward_moments:halo conv2d/fwd_9_halo.sm90a common/convolution90.cuh \
  's/turn \* P::PATCHES + i/turn/'
planted flash_causal attention.forward:flash attention/fwd_2_flash common/flash.cuh 's/% 2 >= seen/% 2 > seen/'
planted flash90_swizzle attention.forward:wgmma attention/fwd_4_wgmma.sm90a common/flash90.cuh \
  's/piece ^ (row % 8)/piece ^ (row \/ 2 % 8)/'
planted ring90_parity attention.vjp:wgmma attention/vjp_4_wgmma.sm90a common/ring90.cuh \
  's/(i \/ STAGES + 1) % 2/i \/ STAGES % 2/'
planted flash90_rows attention.vjp_kv:wgmma attention/vjp_kv_4_wgmma.sm90a attention/vjp_kv_4_wgmma.sm90a.cu \
  's/GROUP \* flash90::OWN/GROUP * 56/'
planted flash90_causal attention.vjp_kv:wgmma attention/vjp_kv_4_wgmma.sm90a attention/vjp_kv_4_wgmma.sm90a.cu \
  's/query < key + 8;/query < key;/'
planted chunks_tail group_norm.forward:chunks group_norm/fwd_2_chunks group_norm/fwd_2_chunks.cu \
  's/pixels = min(p.chunk, p.pixels - first);/pixels = p.chunk;/'
planted cluster_rank group_norm.vjp:cluster group_norm/vjp_4_cluster.sm90a common/slices90.cuh \
  's/v\[i\], rank)/v[i], arch::cluster_rank())/'
planted cluster_beyond group_norm.forward:cluster group_norm/fwd_4_cluster.sm90a common/slices90.cuh \
  's/v\[i\], rank)/v[i], rank + 1)/'
planted cluster_slice group_norm.forward:cluster group_norm/fwd_4_cluster.sm90a common/slices90.cuh \
  's/cluster_rank() \* p.slice/cluster_rank() * (p.slice - 1)/'
planted cluster_run group_norm.vjp:cluster group_norm/vjp_4_cluster.sm90a common/slices90.cuh \
  's/blockIdx.x \/ CLUSTER;/blockIdx.x % CLUSTER;/'
planted cluster_group group_norm.vjp:cluster group_norm/vjp_4_cluster.sm90a common/slices90.cuh \
  's/(channel + i) \/ size/channel \/ size/'
planted cluster_count group_norm.forward:cluster group_norm/fwd_4_cluster.sm90a group_norm/fwd_4_cluster.sm90a.cu \
  's/max(0, min(p.sizes.slice, .*/p.sizes.slice;/'
planted rows_tail layer_norm.forward:registers layer_norm/fwd_2_registers layer_norm/fwd_2_registers.cu \
  's/if (first + k \* STRIDE < p.c) squares/squares/'
planted residual_end residual.forward:plain residual/fwd_1_plain residual/fwd_1_plain.cu \
  '/double sum = 0.0;/{n;s/i < end/i <= end/}'
planted maximum_of_half softmax.forward:vector softmax/fwd_2_vector common/reduce.cuh \
  '/float warp_max/,/return/s/offset > 0/offset > 1/'
wait
cat $out/*.verdict

# The kernels that the mistakes were planted in, as the program has them, from a library too.
mkdir -p $out/control
mapfile -t kernels < <(printf '%s\n' "${kernels[@]}" | sort -u)
mapfile -t runs < <(printf '%s\n' "${runs[@]}" | sort -u)
right=()
for kernel in "${kernels[@]}"; do right+=("$objects/${kernel//\//-}"-*.o); done
link $out/control/library.so "" $out/emulator/*.o "${right[@]}"
verdict "without a mistake: builds" $?
for run in "${runs[@]}"; do passes "$run"; done
wait
cat $out/control/*.verdict
failed=$((failed + $(cat $out/*.verdict $out/control/*.verdict | grep -c ^FAIL)))
finish faults
