"""Every field of a configuration, explained once; other configs start here and change some.

The values are those of `cifar10_bn`. This tree is also the schema: it says which fields exist and
their types. Values are checked when a config is loaded (`lpw_jax.config.validate`).
Epochs count from 1, and every duration is in epochs.
"""

import ml_collections


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the complete default configuration.

    Args:
      variant: 'fast', for accelerators: computes in bfloat16 and evaluates in larger batches. Files
        of published experiments pass it on ('configs/cifar10_bn.py:fast').

    Raises:
      ValueError: there is no such variant.
    """
    config = ml_collections.ConfigDict(
        dict(
            # Source of all randomness: initialisation, order, augmentation, noise. 0 to 2**32 - 1.
            seed=0,
            model=dict(
                # Architecture: 'wide_resnet' (pre-activation, widths 16, 16w, 32w, 64w); one of
                # torchvision's: 'resnet50', 'resnet152', 'densenet161'; 'lstm', for texts; or
                # 'package.module:function', a function that returns a flax module, linen or nnx
                # (lpw_jax.models.own says how it is called). The current directory is searched,
                # too. The function gets `depth` and `width` if it takes them.
                name="wide_resnet",
                # For wide_resnet: number of layers, 6n + 4 with n >= 1 blocks in each group.
                depth=28,
                # For wide_resnet: widening factor w, >= 1. For lstm: number of units.
                width=10,
                # For lstm: size of a byte's embedding, >= 1.
                embedding=190,
                # Weights to start from, for torchvision's networks only: a file of torchvision
                # (.pth, which needs torch, or .safetensors) or of lpw_jax.torch_import;
                # 'imagenet1k_v1' downloads torchvision's; '' = random weights.
                pretrained="",
                # If that file has several state dicts: the one to start from, by the prefix of its
                # names ('model_ema'; '.' = the one without a prefix). '' = there is only one.
                pretrained_key="",
            ),
            data=dict(
                # Data set: 'cifar10', 'cifar100', 'digits' (scikit-learn's, 32x32),
                # 'imagenet2012', or your own data:
                # - any image classification set of tensorflow-datasets ('mnist', 'emnist/letters'),
                #   prepared in `dir` or downloaded. Its test set is the split 'test' or, if there
                #   is none, 'validation'. Up to 4 GiB of pixels are kept in memory; larger sets
                #   are streamed with random crops, as imagenet2012 is.
                # - 'image_folder': images in dir/train/CLASS and dir/test/CLASS (or dir/val/CLASS)
                #   (lpw_jax.data.folders says which files count as images).
                # - 'package.module:function' (lpw_jax.data.own says what it takes and returns).
                # For lstm a text: 'python_sources' (the standard library of the Python that runs
                # this), 'enwik8' (in manual_dir), 'text' (in dir). The last 5 % of a text are the
                # test set, the 5 % before them the validation set.
                name="cifar10",
                # Folder of tensorflow-datasets, or the folder of the data set in it; '' = the
                # default folder of tfds. For image_folder: the folder with train/ and test/. For
                # text: a file, or a folder that holds only text files.
                dir="",
                # Folder with the out-of-distribution archives (LSUN, TIN, SVHN); '' = none.
                ood_dir="",
                # True: a missing out-of-distribution set is an error, not a warning.
                require_ood=False,
                # Note shown with every result; '' = taken from the data set's own description.
                note="",
                # Images held out for validation: the last n training images. 0 = none.
                validation_examples=0,
                # Mean and standard deviation of each channel, on the scale 0 to 1, by which images
                # are normalised. () = the published ones, or for your own data those of the
                # training images (if streamed: of 10,000 of them), which results.json keeps.
                mean=(),
                std=(),
                # Side in pixels of the images that the network sees; not used for cifar10, cifar100
                # and digits. Training images of imagenet2012 and streamed sets are random crops (8
                # to 100 % of the area, ratio 3/4 to 4/3) resized to it, test images central crops.
                # Sets in memory are resized once (shorter side, then the central square); 0 = not
                # resized. For imagenet2012 it must be a multiple of 32.
                image_size=224,
                # For texts: bytes in a sequence, >= 1. Training backpropagates through so many, and
                # keeps the state for the next minibatch. train.batch_size counts sequences.
                sequence_length=100,
                # For texts: bytes that an evaluation reads before each sequence, >= 0.
                context=100,
                # For texts: use only the first so many bytes; 0 = all.
                num_bytes=0,
                # For enwik8: folder with enwik8 or enwik8.zip. For imagenet2012: folder of the
                # ILSVRC2012 tars, if `dir` is not prepared; '' = downloads/manual in `dir`.
                manual_dir="",
                # For imagenet2012 and streamed sets: shorter side to which test images are resized
                # before the crop, >= image_size.
                resize=256,
                # For image_folder, imagenet2012 and streamed sets: True = images that cannot be
                # decoded are counted and skipped (when streamed training skips one, the next image
                # of the minibatch takes its place), False = they are an error.
                skip_corrupt=False,
            ),
            # Learning rates and decays in this section are those of the shared weights, and before
            # the release those of all weights.
            train=dict(
                # Number of epochs, before and after the release together, >= 1.
                epochs=200,
                # Images in one member's minibatch, over all devices.
                batch_size=128,
                # Number of microbatches in a minibatch. They are computed one after the other. Each
                # has its own batch-norm statistics, their gradients are summed, and learning rates
                # are divided by their number. The number of devices must divide their size.
                num_microbatches=1,
                # Learning rate before the schedule lowers it, > 0.
                learning_rate=0.1,
                # Factor of learning rates, constant within an epoch. With i = e - 1 in epoch e:
                # - 'annealing': 1 for i <= anneal_start, then linear in i down to
                #   end_learning_rate / learning_rate at i = anneal_end, then constant. For a single
                #   drop after epoch e take anneal_start = e - 1 and anneal_end = e.
                # - 'cosine': the same, along half a cosine between anneal_start and anneal_end.
                # - 'multistep': milestone_factor ** (number of milestones <= i).
                schedule="annealing",
                # For annealing and cosine: the last rate, >= 0.
                end_learning_rate=0.001,
                # For annealing and cosine: epochs, 0 <= anneal_start < anneal_end.
                anneal_start=100,
                anneal_end=180,
                # For multistep: epochs >= 0, increasing, and a factor > 0.
                milestones=(60, 120, 160),
                milestone_factor=0.2,
                # The first n epochs multiply the factor by e / (n + 1): a linear warm-up. 0 = off.
                warmup_epochs=0,
                # After this epoch the shared weights are frozen (their rate is 0), and only members
                # are trained. The shared optimiser's momentum is still updated. -1 = never,
                # otherwise late_phase.release_epoch to train.epochs - 1.
                freeze_epoch=-1,
                # Optimiser of shared weights, of all weights before the release, and of members. It
                # gets the learning rates and decays of the epoch. All rules are PyTorch's:
                # - 'sgd'.
                # - 'adam': beta 0.9 and 0.999, eps 1e-8, L2 penalty in the gradient (not AdamW).
                # - 'adamw': the same, but weights decay by themselves, by rate * decay.
                # - 'package.module:function', such as 'optax:lion': a function that takes
                #   learning_rate and, unless all decays are 0, weight_decay, and returns an optax
                #   transformation. Compiled updates call it with the epoch's rates as traced
                #   scalars.
                optimizer="sgd",
                # L2 penalty on every weight, added to the gradient before momentum. >= 0.
                weight_decay=5e-4,
                # For sgd: momentum, 0 <= momentum < 1.
                momentum=0.9,
                # For sgd: Nesterov's momentum (needs momentum > 0).
                nesterov=True,
                # Images are padded with so many black pixels on every side, then cropped at random
                # to their old size; 0 = no crop. For imagenet2012 and streamed sets, which have
                # their own crops, this and cutout must be 0.
                crop_padding=4,
                # Whether images are flipped horizontally at random.
                flip=True,
                # Side in pixels of the one square set to 0 in every image, 0 (off) to 32.
                cutout=0,
                # Random erasing: probability, 0 (off) to 1, that a rectangle of 2 to 33 % of the
                # area, height / width 0.3 to 3.3, is set to 0 after normalisation (published code:
                # 0.5). Like cutout only for data sets in memory.
                random_erasing=0.0,
                # Type of convolutions and activations: 'float32', 'bfloat16' or 'float64'. Weights,
                # statistics, losses and optimisers are float32 at least.
                compute_dtype="float32",
                # Precision of float32 products, in JAX's names: 'default' (fastest: TF32 on GPUs,
                # one bfloat16 pass on TPUs), 'high' (TF32; three bfloat16 passes), 'highest'
                # (float32; six bfloat16 passes).
                matmul_precision="highest",
                # What the backward pass computes again instead of storing it, to save memory:
                # 'none', or 'batch_norm', that is, batch norm and ReLU inside of the networks'
                # blocks. Results change by rounding at most.
                remat="none",
                # If a loss is infinite or not a number: 'stop' ends the run at the end of the epoch
                # or before the next checkpoint, 'warn' continues with a warning.
                on_nonfinite="stop",
            ),
            # Rates and decays in this section are those of the members, from the release on.
            late_phase=dict(
                # Number of members K, >= 1.
                num_members=10,
                # The release is at the end of this epoch; 0 = before the first epoch, -1 = never.
                # At most train.epochs - 1.
                release_epoch=120,
                # Noise at the release: its standard deviation over the rms of each array, >= 0.
                sigma=0.0,
                # True = at the release each member gets a new random head, He normal with bias 0.
                # The whole head must be late-phase.
                reinitialize_head=False,
                # Coasting: steps with a zero gradient, so that only weight decay and momentum act.
                # 'reference': in each cycle members 1 to K - 1 first take one such step, as in the
                # published CIFAR code. 'every_minibatch': at each member's step all other members
                # take one, as in the published ImageNet code. 'none': Algorithm 1 of the paper (and
                # per_spec_optim of the ImageNet code).
                coasting="reference",
                # False = after the release each minibatch goes to a random member, the shared
                # weights are updated after every minibatch, and nothing coasts. Then metrics.jsonl
                # lists values by place in the cycle instead of by member.
                inner_training=True,
                # True = in each cycle all members see the same minibatch with the same
                # augmentation, as in BatchEnsemble. An epoch then takes K times as long. The shared
                # gradient is still the sum; shared_grad_scale = 1 / K makes it the mean. Without
                # dropout, members that start equal stay equal: use sigma or reinitialize_head.
                same_minibatch=False,
                # Learning rate of the members before the schedule lowers it, >= 0.
                learning_rate=0.1,
                # Whether the schedule also lowers the members' rate.
                anneal=True,
                # Whether the shared rate is divided by num_members after the release.
                divide_shared_rate=False,
                # L2 penalty on the members' weights, >= 0.
                weight_decay=5e-4,
                # Which weights are late-phase: regular expressions. Each must match the whole path
                # of a parameter, joined by '/' ('group0_block0/bn1/scale', 'head/kernel').
                # Default: scale and shift of every batch norm, and the head. If batch norm is not
                # late-phase, it has one pair of running statistics, which all members update.
                patterns=("(.*/)?bn[^/]*/(scale|bias)", "head/(kernel|bias)"),
                # Further late-phase weights: 'copies' (none), 'rank_one' (factors on inputs and
                # outputs of weights), 'low_rank' (an addition of rank `rank`), 'templates' (layers
                # of a wide_resnet are sums of shared templates; members own the coefficients).
                kind="copies",
                # For 'rank_one' and 'low_rank': which weights, as in `patterns`.
                kind_patterns=("(?!head/).*kernel",),
                # For 'low_rank': rank of the addition, >= 1.
                rank=4,
                # For 'templates': which layers are made of templates: 'input_layer', 'adapter' (the
                # first block of each group), 'conv_block' (the other blocks) and 'head'.
                template_groups=("adapter", "conv_block"),
                # For 'templates': where coefficients are late-phase; elsewhere they are shared.
                late_template_groups=("input_layer", "adapter", "conv_block", "head"),
                # For 'templates': learning rate and decay of the coefficients before the release,
                # and of shared coefficients after it; scheduled like the shared rate. >= 0.
                tied_learning_rate=0.1,
                tied_weight_decay=0.0,
                # How a step computes the members, with the same results: 'vmap' (as one large
                # batch), 'scan' (one after the other, with the memory of one), 'unroll' (the same
                # with K copies of the program), 'auto' (vmap on accelerators with enough memory,
                # otherwise scan).
                member_mode="auto",
                # Gamma: factor of the shared gradient, which is a sum over K minibatches. > 0. For
                # networks without batch norm the sum may be too large a step: try 1 / K, the mean.
                shared_grad_scale=1.0,
            ),
            swa=dict(
                # Stochastic weight averaging averages the weights at the end of this epoch and of
                # all later epochs. If there is a release, it must be later. 0 = off.
                start_epoch=0,
                # 0 = the mean of those weights (SWA). Between 0 and 1 = an exponential moving
                # average, decay * average + (1 - decay) * weights after every cycle, from the first
                # cycle of start_epoch on.
                decay=0.0,
            ),
            # Devices. Results change by rounding at most.
            parallel=dict(
                # Required number of devices on all hosts together; 0 = use all that there are.
                num_devices=0,
                # Required kind of devices: 'cpu', 'gpu' or 'tpu'; '' = any.
                platform="",
                # Which part of JAX drives them: 'pmap', which JAX only maintains, or 'shard_map',
                # its successor. Results are the same, bit for bit.
                backend="pmap",
                # How devices share the work after the release; before it they always use 'data'.
                # 'data': each device takes a part of every minibatch. 'members': each takes whole
                # members, so the number of devices must divide num_members. 'groups' (needs
                # shard_map): devices form groups that have equally many members, as many groups as
                # possible; the devices of a group share the minibatches of its members. 'auto':
                # 'members' if possible, otherwise 'groups' with shard_map and 'data' with pmap.
                layout="auto",
            ),
            checkpoint=dict(
                # A checkpoint is written at the end of every n-th epoch; 0 = none.
                every_epochs=5,
                # Another one is written, between cycles, when the newest is older than so many
                # minutes; 0 = never. Several hosts compare their clocks every 50 cycles.
                every_minutes=15.0,
                # How many of the newest checkpoints are kept, >= 1.
                keep=2,
            ),
            evaluate=dict(
                # Images in one evaluation batch, on all devices together; changes no result. >= 1.
                batch_size=512,
                # The test set is also evaluated at the end of every n-th epoch and of the last one;
                # 0 = only after training. With SWA, this evaluates the current weights and a copy
                # with averaged weights, whose batch-norm statistics take one more pass over the
                # training set.
                every_epochs=0,
                # Whether predictions/ holds the logits of every member, in addition to those of the
                # collapsed network and the ensemble.
                member_predictions=True,
            ),
        ),
        # Types are checked on loading, where a message can name the field and list all mistakes.
        type_safe=False,
    )
    if variant == "fast":
        config.train.compute_dtype = "bfloat16"
        config.evaluate.batch_size = 2048
    elif variant:
        raise ValueError(f"variant {variant!r}: must be 'fast' or not given")
    return config
