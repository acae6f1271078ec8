#include "state.h"
namespace emu { void finish_one_load(bool){} u8* shadow_at(u32){return nullptr;}
const char* encode_tensor_map(void*,int,int,void*,const u64*,const u64*,const u32*,int){return "not here yet";} }
